"""`key.*`: who may give orders. Each change is a ledger entry, and in force once that is durable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from immured.errors import Refused
from immured.identity.actor import check_peer
from immured.identity.keyring import (
    MAX_LINE,
    KeyRecord,
    Keyring,
    KeyStatus,
    check_key_name,
    check_note,
    is_key_id,
    unknown,
)
from immured.identity.policy.lockout import lockouts
from immured.identity.policy.rights import excess
from immured.identity.policy.warrant import HOST, Target
from immured.ledger import entry_types
from immured.service import targets
from immured.service.commands import CommandSpec
from immured.service.context import Service
from immured.service.deciding import decide, deciding
from immured.service.key_arguments import BINDINGS, bound, check_names, public_of
from immured.service.request import Answer, Request
from immured.wire.strict import Fields, take

__all__ = ["COMMANDS"]

DEFAULT_OVERLAP_MS: Final = 24 * 3600 * 1000
MAX_OVERLAP_MS: Final = 90 * 24 * 3600 * 1000
_PAGE: Final = 1000


async def add(service: Service, request: Request) -> Answer:
    """args: `name`, `public` (the raw 32 bytes), `role`; optionally what it is bound to. result: the record."""
    fields = take(request.command.args, "args", ("name", "public", *BINDINGS))
    fields.required("role", str)
    name, public = check_key_name(fields.required("name", str)), public_of(fields)
    async with deciding(service, request):
        record = bound(KeyRecord(public, name, "viewer", _date(service.clock())), fields)
        _check_excess(service, request, record)
        for target in targets.of_key(service.authority, request.actor, record):
            request.warrant.check(target)
        check_names(service.authority.policy, record)
        service.authority.keyring.check_addable(record)
        receipt = await decide(service, request, entry_types.KEY_ADDED, {"record": record.to_map()})
    return Answer(_shown(service, record), receipt)


async def list_keys(service: Service, request: Request) -> Answer:
    """args: `after` (a key's id), `limit` (1 to 1,000). result: `keys`, those that one may see, oldest first; `next`
    where there are more."""
    fields = take(request.command.args, "args", ("after", "limit"))
    after, limit = fields.optional("after", str), fields.integer("limit", 1, _PAGE) or _PAGE
    authority, warrant = service.authority, request.warrant
    warrant.covers(warrant.place())
    found = [
        record
        for record in authority.keyring
        if targets.covers_all(warrant, targets.of_key(authority, request.actor, record))
    ]
    begin = 0
    if after is not None:
        begin = next((at + 1 for at, record in enumerate(found) if record.id == after), 0)
        if not begin:
            raise fields.wrong("after", "is the id of no key")
    page = found[begin : begin + limit]
    more = {"next": page[-1].id} if len(found) > begin + limit else {}
    return Answer({"keys": [_shown(service, record) for record in page], **more})


async def show(service: Service, request: Request) -> Answer:
    """args: `key` (name or id). result: the record."""
    fields = take(request.command.args, "args", ("key",))
    return Answer(_shown(service, _find(service, request, fields)))


async def label(service: Service, request: Request) -> Answer:
    """args: `key`, `name`, `note`. result: the record."""
    fields = take(request.command.args, "args", ("key", "name", "note"))
    name, note = fields.optional("name", str), fields.optional("note", str)
    async with deciding(service, request):
        record = _find(service, request, fields)
        changed = replace(
            record,
            name=record.name if name is None else check_key_name(name),
            note=record.note if note is None else check_note(note, "args.note"),
        )
        if changed.name != record.name:
            # The policy may name keys: a name can be a right, and lose a denial.
            _check_excess(service, request, changed)
        return await _change(service, request, changed, "labelled")


async def bind(service: Service, request: Request) -> Answer:
    """args: `key`, and whatever it is to be bound to instead. result: the record."""
    fields = take(request.command.args, "args", ("key", *BINDINGS))
    async with deciding(service, request):
        record = _find(service, request, fields)
        _check_not_revoked(record)
        changed = bound(record, fields)
        _check_own(request, changed)
        _check_excess(service, request, changed)
        for target in targets.of_key(service.authority, request.actor, changed):
            request.warrant.check(target)
        check_names(service.authority.policy, changed)
        return await _change(service, request, changed, "bound")


async def suspend(service: Service, request: Request) -> Answer:
    """args: `key`, `reason`. result: the record."""
    return await _set_status(service, request, KeyStatus.SUSPENDED, "suspended")


async def resume(service: Service, request: Request) -> Answer:
    """args: `key`, `reason`. result: the record."""
    return await _set_status(service, request, KeyStatus.ACTIVE, "resumed")


async def revoke(service: Service, request: Request) -> Answer:
    """args: `key`, `reason`; or the id of a key that some key certified, and `issuer`: beneath which one it is barred
    (default: every one, for who may so on the host; else one's own key). result: the record, or `key`, `issuer`."""
    fields = take(request.command.args, "args", ("key", "reason", "issuer"))
    key = fields.required("key", str)
    if is_key_id(key) and not _is_seen(service, request, key):
        return await _bar(service, request, fields, key)
    if "issuer" in fields:
        raise fields.wrong("issuer", "is for a certified key, and that one is in the keyring")
    return await _set_status(service, request, KeyStatus.REVOKED, "revoked")


async def rotate(service: Service, request: Request) -> Answer:
    """args: `key`, `public` (the successor's), `overlap_ms` (how long the old one serves on; default a day),
    `expires_ms` (of the new one; default: the old one's). result: the successor's record, and `old`."""
    fields = take(request.command.args, "args", ("key", "public", "overlap_ms", "expires_ms"))
    overlap = fields.integer("overlap_ms", 0, MAX_OVERLAP_MS)
    public = public_of(fields)
    async with deciding(service, request):
        record = _find(service, request, fields)
        now = service.clock()
        _check_not_revoked(record)
        if record.status is KeyStatus.SUSPENDED:
            # The one that leaked stays as it is; its successor serves, as if it had been resumed.
            for target in targets.of_key(service.authority, request.actor, record):
                request.warrant.require("key.resume", target)
        if len(record.predecessors) >= MAX_LINE:
            raise Refused("wrong_state", f"{MAX_LINE} keys stood before that one", "add a key with another name")
        fresh = replace(
            record,
            public=public,
            status=KeyStatus.ACTIVE,
            added=_date(now),
            not_before_ms=None,
            predecessors=(record.id, *record.predecessors),
        )
        new = bound(fresh, Fields(_only(fields, "expires_ms"), "args", "bad_argument"))
        if new.standing(now) != "active":
            raise fields.wrong("expires_ms", "is over, as the old key's is", "say until when the new one serves")
        own = record.id == request.actor.key_id
        longer = record.expires_ms is not None and (new.expires_ms is None or new.expires_ms > record.expires_ms)
        if longer or not own:
            _check_excess(service, request, new)
        ends = now + (DEFAULT_OVERLAP_MS if overlap is None else overlap)
        old = replace(
            record,
            successor=new.id,
            expires_ms=ends if record.expires_ms is None else min(ends, record.expires_ms),
        )
        ring = service.authority.keyring
        ring.check_successor(record, new)
        _check_lockout(service, ring.with_successor(old, new, as_of=ring.as_of))
        entered = {"key": old.id, "record": new.to_map(), "old": old.to_map()}
        receipt = await decide(service, request, entry_types.KEY_ROTATED, entered)
    return Answer({**_shown(service, new), "old": _shown(service, old)}, receipt)


async def _set_status(service: Service, request: Request, status: KeyStatus, change: str) -> Answer:
    fields = take(request.command.args, "args", ("key", "reason"))
    async with deciding(service, request):
        record = _find(service, request, fields)
        _check_not_revoked(record)
        if record.status is status:
            raise _wrong_state(record, "nothing is to be done")
        if status is KeyStatus.ACTIVE:
            _check_excess(service, request, record)
        return await _change(service, request, replace(record, status=status), change, _reason(fields))


def _is_seen(service: Service, request: Request, key_id: str) -> bool:
    """Whether it is in the keyring, for who asks: one that he may not see is to him as any other key's id."""
    record, warrant = service.authority.find(key_id), request.warrant
    if record is None:
        return False
    where = targets.of_key(service.authority, request.actor, record)
    return targets.covers_all(warrant, where) or all(warrant.holds("key.show", one) for one in where)


async def _bar(service: Service, request: Request, fields: Fields, key: str) -> Answer:
    actor, warrant = request.actor, request.warrant
    async with deciding(service, request):
        issuer: KeyRecord | None = None
        if "issuer" in fields:
            issuer = _find(service, request, fields, "issuer")
        elif not warrant.covers(Target(HOST, targets.NO_PROJECT, ())):
            issuer = actor.root
            if actor.chain or not warrant.covers(Target(actor.tenant, actor.project, (issuer.id,))):
                raise unknown(key)
        said: dict[str, object] = {"key": key, **_reason(fields)}
        if issuer is not None:
            said["issuer"] = issuer.id
        receipt = await decide(service, request, entry_types.KEY_BARRED, said)
    return Answer(said, receipt)


async def _change(
    service: Service, request: Request, changed: KeyRecord, change: str, more: Mapping[str, object] | None = None
) -> Answer:
    """Another record for a key that is there."""
    ring = service.authority.keyring
    ring.check_changeable(changed)
    if ring.find(changed.id) != changed:
        _check_lockout(service, ring.with_change(changed, as_of=ring.as_of))
    entered = {"key": changed.id, "change": change, "record": changed.to_map(), **(more or {})}
    receipt = await decide(service, request, entry_types.KEY_CHANGED, entered)
    return Answer(_shown(service, changed), receipt)


def _find(service: Service, request: Request, fields: Fields, name: str = "key") -> KeyRecord:
    """The key that `args` name, if one may do that to it. Raises Refused `not_found`, `denied`."""
    given = fields.required(name, str)
    ring = service.authority.keyring
    record = ring.find(given) if is_key_id(given) else ring.named(given)
    if record is None:
        raise unknown(given)
    where = targets.of_key(service.authority, request.actor, record)
    targets.seen(request.warrant, where, "key.show", unknown(given))
    return record


def _check_excess(service: Service, request: Request, record: KeyRecord) -> None:
    """Nobody grants more than he has. Raises Refused `escalation`."""
    found = excess(service.authority.decider, request.actor, record, service.clock())
    if found is not None:
        raise found.refused()


def _check_own(request: Request, changed: KeyRecord) -> None:
    """Nobody binds the key that he signs with to others than himself. Raises Refused `lockout`."""
    if changed.id == request.actor.root.id:
        try:
            check_peer(changed, request.actor.caller)
        except Refused as refusal:
            raise Refused(
                "lockout",
                f"{refusal.message}: you could not use it any more",
                "have it among them that you are, or have another key do it",
                details={"key": changed.id},
            ) from None


def _check_lockout(service: Service, ring: Keyring) -> None:
    """Raises Refused `lockout` where that keyring could do something no more that this one can (`lockouts`)."""
    authority, now = service.authority, service.clock()
    after = list(lockouts(authority.policy, ring, now))
    if after:
        before = [one.details for one in lockouts(authority.policy, authority.keyring, now)]
        for refusal in after:
            if refusal.details not in before:
                raise refusal


def _check_not_revoked(record: KeyRecord) -> None:
    if record.status is KeyStatus.REVOKED:
        raise _wrong_state(record, "a revoked key is so for good: add another")


def _wrong_state(record: KeyRecord, remedy: str) -> Refused:
    details = {"state": record.status.value}
    return Refused("wrong_state", f"the key {record.name!r} is {record.status.value}", remedy, details=details)


def _reason(fields: Fields) -> dict[str, object]:
    reason = fields.optional("reason", str)
    return {} if reason is None else {"reason": check_note(reason, "args.reason")}


def _only(fields: Fields, *names: str) -> dict[str, object]:
    return {name: fields.values[name] for name in names if name in fields}


def _shown(service: Service, record: KeyRecord) -> dict[str, object]:
    return {**record.to_map(), "standing": record.standing(service.clock())}


def _date(now_ms: int) -> str:
    return datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


COMMANDS: Final = (
    CommandSpec("key.add", "key.add", add),
    CommandSpec("key.list", "key.list", list_keys),
    CommandSpec("key.show", "key.show", show),
    CommandSpec("key.label", "key.label", label),
    CommandSpec("key.bind", "key.bind", bind),
    CommandSpec("key.suspend", "key.suspend", suspend),
    CommandSpec("key.resume", "key.resume", resume),
    CommandSpec("key.revoke", "key.revoke", revoke),
    CommandSpec("key.rotate", "key.rotate", rotate),
)
