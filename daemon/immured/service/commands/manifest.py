"""`manifest.*`: manifests that others run under. Loaded once they passed the pipeline; revoked for good."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from immured.errors import ImmuredError, Refused
from immured.identity.keyring import check_note
from immured.identity.policy.warrant import HOST, Target, Warrant
from immured.ledger import entry_types
from immured.manifest.pipeline import CAPABILITIES, FAIL, SCHEMA
from immured.manifest.read import MAX_TEXT
from immured.manifest.signature import MAX_TEXT as MAX_SIGNATURES
from immured.service import targets
from immured.service.commands import CommandSpec
from immured.service.context import Service, log
from immured.service.deciding import decide, deciding
from immured.service.manifest_files import DamagedError, digest_of
from immured.service.manifest_store import IN_FORCE, stem_of
from immured.service.request import Answer, Request
from immured.wire.messages import Receipt
from immured.wire.strict import shown, take

if TYPE_CHECKING:
    from immured.identity.actor import Actor
    from immured.manifest.pipeline import Judged
    from immured.manifest.schema import Manifest
    from immured.service.manifest_register import Approved

__all__ = ["COMMANDS", "MAX_LOADED", "MAX_OF_TENANT"]

MAX_LOADED: Final = 4096
"""That are not revoked; each is some KiB of memory, and three files."""
MAX_OF_TENANT: Final = 512
"""Of those, that name one tenant."""
MOST_KEPT_BYTES: Final = 64 * 1024 * 1024
"""Of all that name one tenant, revoked ones too: they stay on the disk, so that what ran can be made again."""
_PAGE: Final = 256
_MAX_INTEGER: Final = 2**53 - 1


async def load(service: Service, request: Request) -> Answer:
    """args: `manifest` (bin: the file), `signatures` (bin: those that came with it), `check` (bool: only say what would
    be said). result: docs/protocol.md, manifest.load."""
    fields = take(request.command.args, "args", ("manifest", "signatures", "check"))
    raw = fields.required("manifest", bytes)
    fields.sized("manifest", bytes, 0, MAX_TEXT)
    signatures = fields.sized("signatures", bytes, 0, MAX_SIGNATURES) or b""
    check = fields.optional("check", bool) or False
    async with deciding(service, request):
        store, now = service.manifests, service.clock()
        judged = await store.judge(request.warrant, raw, signatures, now, whole=check)
        if judged.manifest is not None and not judged.fails(SCHEMA) and (judged.refusal is None or check):
            judged = _approved(service, request.warrant, judged, judged.manifest)
        request.warrant.checked = True  # of what is not understood nobody can say for whom it would be
        if check:
            passes = judged.refusal is None
            code = {} if judged.refusal is None else {"code": judged.refusal.code}
            return Answer({**judged.to_map(), "bytes": len(raw), "passes": passes, "stored": False, **code})
        if judged.refusal is not None:
            raise await _refused(service, request, judged, judged.refusal)
        known = store.register.find(judged.digest)
        same = known is not None and known.signatures == digest_of(signatures)
        if known is not None and same and store.standing(judged.digest, now) == IN_FORCE:
            result = {**judged.to_map(), "bytes": len(raw), "seq": known.seq}
            return Answer({**result, "passes": True, "stored": False, "known": True})
        receipt = await _store(service, request, judged, raw, signatures)
    result = {**judged.to_map(), "bytes": len(raw), "seq": receipt.seq, "passes": True, "stored": True}
    return Answer(result | {"known": known is not None}, receipt)


def _approved(service: Service, warrant: Warrant, judged: Judged, manifest: Manifest) -> Judged:
    """May it be loaded for those tenants, and is what it adds approved? Raises Refused `denied`."""
    try:
        for target in _governed(service, warrant.actor, manifest.tenants, manifest.class_, judged.rank):
            warrant.check(target)
    except Refused as error:
        if error.code != "approval_required":
            raise
        return judged.failed(CAPABILITIES, error)
    return judged


async def _refused(service: Service, request: Request, judged: Judged, error: Refused) -> Refused:
    """Entered with every stage up to the one that failed. The refusal, which says them too."""
    stage = next(one.stage for one in judged.verdicts if one.verdict == FAIL)
    said = judged.to_map()
    if not error.retry:
        data = {**request.to_map(), **said, "stage": stage, "code": error.code, "message": error.message}
        try:
            pending = service.ledger.entry(entry_types.MANIFEST_REFUSED, request.actor.to_map(), data)
            durable = await pending.durable()
        except Refused:
            pass  # nothing was loaded all the same
        else:
            request.refused = Receipt(durable.seq, durable.leaf)
    details: dict[str, object] = {**error.details, "stage": stage}
    details |= {name: said[name] for name in ("stages", "added") if name in said}
    return Refused(error.code, error.message, error.remedy, details=details)


async def _store(service: Service, request: Request, judged: Judged, raw: bytes, signatures: bytes) -> Receipt:
    """Files, entry, names of the files, in that order: a daemon that starts finishes what is between the last two."""
    store, digest = service.manifests, judged.digest
    stem, known = stem_of(digest), store.register.find(digest)
    if known is None:
        _check_room(service, judged, len(raw))
    if store.built_in(digest):
        raise Refused("wrong_state", f"{digest} is built in", "use it as it is", details={"manifest": digest})
    try:
        await asyncio.to_thread(store.files.stage, raw, signatures)
    except OSError as error:
        await asyncio.to_thread(_unstage, service, stem, loaded=known is not None)
        raise _failed(error) from error
    entered = {**judged.to_map(), "bytes": len(raw), "signatures": digest_of(signatures), "at_ms": service.clock()}
    try:
        receipt = await decide(service, request, entry_types.MANIFEST_LOADED, entered)
    except Refused:
        await asyncio.to_thread(_unstage, service, stem, loaded=known is not None)
        raise
    problem: ImmuredError | None = None
    with store.writing(digest):
        try:
            await asyncio.to_thread(store.files.finish, stem, digest_of(signatures), service.keys.signing[:1])
        except (OSError, DamagedError) as error:
            # It is in the ledger, and the next start finishes it; until then its files are not as they should be.
            log.error("the manifest %s has not got its files' names yet: %s", digest, error)
            problem = ImmuredError("storage_failed", f"{digest} is loaded, but for its files: {error}", "restart")
        store.register.apply(entry_types.MANIFEST_LOADED, request.actor.to_map(), entered, receipt.seq)
        approved = store.register.find(digest)
        assert approved is not None  # noqa: S101 - that is what it says
        assert judged.manifest is not None  # noqa: S101 - it passed
        store.put_in_force(approved, judged.manifest)
    if problem is not None:
        raise problem
    return receipt


def _unstage(service: Service, stem: str, *, loaded: bool) -> None:
    try:
        service.manifests.files.unstage(stem, loaded=loaded)
    except OSError as error:
        log.error("what is left of the manifest %s was not removed: %s", stem, error)


def _check_room(service: Service, judged: Judged, size: int) -> None:
    """Raises Refused `over_quota`."""
    register = service.manifests.register
    tenants = () if judged.manifest is None else judged.manifest.tenants
    for tenant, most in ((None, MAX_LOADED), *((one, MAX_OF_TENANT) for one in tenants)):
        used = register.standing(tenant)
        if used >= most:
            whose = "" if tenant is None else f" for the tenant {tenant!r}"
            raise Refused(
                "over_quota",
                f"{used} manifests are loaded{whose}, which is the bound",
                "revoke those that nobody uses any more",
                details={"quota": "manifests", "limit": most, "used": used, "asked": 1},
            )
    for tenant in tenants:
        kept = register.kept(tenant)
        if kept + size > MOST_KEPT_BYTES:
            raise Refused(
                "over_quota",
                f"the manifests of the tenant {tenant!r}, revoked ones too, take {kept} bytes of {MOST_KEPT_BYTES}",
                "use those that are loaded; parameters fill in what differs from run to run",
                details={"quota": "manifest_bytes", "limit": MOST_KEPT_BYTES, "used": kept, "asked": size},
            )


async def list_manifests(service: Service, request: Request) -> Answer:
    """args: `name`, `after`, `limit`. result: `manifests`, rows: the built-in ones, then the others as they were
    loaded, of those that one may see; `next` where there are more. Where the command names a tenant, those that it may
    use."""
    fields = take(request.command.args, "args", ("name", "after", "limit"))
    name, limit = fields.optional("name", str), fields.integer("limit", 1, _PAGE) or _PAGE
    after = fields.optional("after", str) or "0"
    if not after.isascii() or not after.isdigit() or len(after) > 18:
        raise fields.wrong("after", f"is {shown(after)}", "what a reply called `next`")
    warrant, store, tenant = request.warrant, service.manifests, request.command.tenant
    warrant.covers(warrant.place())  # where there is nothing, it was asked all the same
    rows: list[Mapping[str, object]] = []
    place = 0  # among those that who asks may see: it tells nothing of others
    for digest, approved in store.everything():
        if approved is not None and tenant is not None and not approved.is_for(tenant):
            continue
        class_ = _class_of(service, digest, approved)
        if not warrant.covers(_seen_as(request.actor, approved, class_)):
            continue
        place += 1
        if place <= int(after) or (name is not None and name != _name_of(approved, class_)):
            continue
        if len(rows) == limit:
            return Answer({"manifests": rows, "next": str(place - 1)})
        rows.append(_row(service, digest, approved))
    return Answer({"manifests": rows})


async def show(service: Service, request: Request) -> Answer:
    """args: `digest`. result: its row; `manifest` and `signatures` (bin), where they are as they were loaded."""
    fields = take(request.command.args, "args", ("digest",))
    digest = fields.required("digest", str)
    approved = _find(service, request, digest)
    row = _row(service, digest, approved)
    try:
        raw, signatures = service.manifests.read(digest)
    except Refused as error:
        return Answer({**row, "damage": error.message})
    return Answer({**row, "manifest": raw, "signatures": signatures})


async def revoke(service: Service, request: Request) -> Answer:
    """args: `digest`, `reason`. result: `digest`, `standing`, `seq`. For good; whoever governs the host may revoke what
    was never loaded."""
    fields = take(request.command.args, "args", ("digest", "reason"))
    digest = fields.required("digest", str)
    reason = check_note(fields.required("reason", str), "args.reason")
    async with deciding(service, request):
        store, warrant, actor = service.manifests, request.warrant, request.actor
        hidden = store.unknown(digest)
        try:
            approved = store.find(digest, None if warrant.anywhere else actor.tenant)
        except Refused:
            approved = None
        if store.built_in(digest):
            _check_seen(request, None, _class_of(service, digest, None), hidden)
            raise Refused(
                "wrong_state",
                f"{digest} is built in, and comes again with every start",
                "list it in `revoked` of the policy's [manifests]",
                details={"manifest": digest},
            )
        if approved is None:
            if len(digest) != 71 or not digest.startswith("sha256:") or not _is_hex(digest[7:]):
                raise fields.wrong("digest", f"is {shown(digest, 80)}", "a digest is `sha256:` and 64 hex digits")
            if not warrant.covers(Target(HOST, targets.NO_PROJECT, actor.owners)):
                raise hidden
        else:
            for target in _governed(service, actor, approved.tenants, approved.class_, owners=(approved.key,)):
                if not warrant.covers(target):
                    _check_seen(request, approved, approved.class_, hidden)
                    warrant.check(target)
        if store.register.revoked(digest) is not None:
            raise Refused("wrong_state", f"{digest} was revoked before", "nothing is to be done")
        entered: dict[str, object] = {"digest": digest, "reason": reason, "at_ms": service.clock()}
        if approved is not None:
            entered["name"] = approved.name
        receipt = await decide(service, request, entry_types.MANIFEST_REVOKED, entered)
        store.register.apply(entry_types.MANIFEST_REVOKED, actor.to_map(), entered, receipt.seq)
    return Answer({"digest": digest, "standing": "revoked", "seq": receipt.seq}, receipt)


# -- whose they are, and who sees them


def _governed(
    service: Service,
    actor: Actor,
    tenants: Sequence[str],
    class_: str,
    added: int | None = None,
    *,
    owners: tuple[str, ...] | None = None,
) -> list[Target]:
    """What who loads or revokes one is asked about: every project of its tenants, as it can be used in all of them. One
    that is for no tenant in particular is the host's."""
    whose = actor.owners if owners is None else owners
    if not tenants:
        return [Target(HOST, targets.NO_PROJECT, whose, class_, added=added)]
    places = service.manifests.places(tenants)
    return [Target(tenant, project, whose, class_, added=added) for tenant, project in places]


def _seen_as(actor: Actor, approved: Approved | None, class_: str) -> Target:
    """What is for everybody stands in everybody's tenant; what is for others, in theirs."""
    if approved is None:
        return Target(actor.tenant, actor.project, (), class_)
    tenant = actor.tenant if approved.is_for(actor.tenant) else approved.tenants[0]
    return Target(tenant, actor.project, (approved.key,), class_)


def _class_of(service: Service, digest: str, approved: Approved | None) -> str:
    """Empty of a built-in one that is damaged: no rule about a class holds of it."""
    if approved is not None:
        return approved.class_
    try:
        return service.manifests.manifest(digest).class_
    except Refused:
        return ""


def _find(service: Service, request: Request, digest: str) -> Approved | None:
    """How one that this actor may see was loaded; None: it is built in. Raises Refused `unknown_manifest`."""
    warrant, tenant = request.warrant, request.actor.tenant
    warrant.covers(warrant.place())  # where there is nothing, it was asked all the same
    approved = service.manifests.find(digest, None if warrant.anywhere else tenant)
    if not warrant.covers(_seen_as(request.actor, approved, _class_of(service, digest, approved))):
        raise service.manifests.unknown(digest)
    return approved


def _check_seen(request: Request, approved: Approved | None, class_: str, hidden: Refused) -> None:
    """Raises Refused `unknown_manifest` where who asks may not so much as see it."""
    if not request.warrant.holds("manifest.show", _seen_as(request.actor, approved, class_)):
        raise hidden


def _name_of(approved: Approved | None, class_: str) -> str:
    return class_ if approved is None else approved.name  # a built-in one is a class, and is called like it


def _row(service: Service, digest: str, approved: Approved | None) -> dict[str, object]:
    """What a list shows of one."""
    store, class_ = service.manifests, _class_of(service, digest, approved)
    row: dict[str, object] = {"digest": digest, "built_in": approved is None}
    row |= {"name": _name_of(approved, class_), "class": class_}
    row |= {"tenants": [], "personas": []}
    if approved is not None:
        row |= {"tenants": list(approved.tenants), "personas": list(approved.personas)}
    row["standing"] = store.standing(digest, service.clock())
    if approved is None:
        return row
    row |= {"seq": approved.seq, "loaded_ms": approved.at_ms, "key": approved.key, "key_name": approved.key_name}
    row |= {"bytes": approved.bytes, "signers": [one.to_map() for one in approved.signers]}
    ends = [one.expires_ms for one in approved.signers]
    row["expires_ms"] = max(ends)
    if approved.baseline is not None:
        row["baseline"] = dict(approved.baseline)
    if approved.severity is not None:
        row["severity"] = approved.severity
    if (revoked := store.register.revoked(digest)) is not None:
        row["revoked"] = revoked.to_map()
    return row


def _is_hex(text: str) -> bool:
    return all(one in "0123456789abcdef" for one in text)


def _failed(error: OSError) -> Refused:
    return Refused(
        "storage_failed", f"the manifest could not be kept: {error.strerror}", "see the state directory's disk"
    )


COMMANDS: Final = (
    CommandSpec("manifest.load", "manifest.load", load),
    CommandSpec("manifest.list", "manifest.list", list_manifests),
    CommandSpec("manifest.show", "manifest.show", show),
    CommandSpec("manifest.revoke", "manifest.revoke", revoke),
)
