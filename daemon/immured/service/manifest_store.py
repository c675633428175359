"""The manifests that may be used here, and how each stands now.

What was approved and revoked the ledger says (`manifest_register`); the bytes are in DIR/manifests (`manifest_files`),
and are looked at before every use: read whole again where the kernel says that anything of them was written. Whose
signatures count is judged at every use, by the keys and the policy of that moment.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from immured.errors import Refused
from immured.identity.actor import DEFAULT, Actor, Caller
from immured.identity.policy.permissions import SIGNING
from immured.identity.policy.warrant import HOST, Target
from immured.isolation.granted import granted
from immured.isolation.seccomp import named_calls
from immured.ledger import entry_types
from immured.manifest.builtin import parse_toml
from immured.manifest.pipeline import Judged, Rules, SignerKey, check_listed, compare, examine
from immured.service.manifest_files import (
    DamagedError,
    Identity,
    ManifestFiles,
    check_own,
    digest_of,
    identity_of,
)
from immured.service.manifest_inline import Inline
from immured.wire.strict import shown

if TYPE_CHECKING:
    from immured.identity.authority import Authority
    from immured.identity.keyring import KeyRecord
    from immured.identity.policy.warrant import Warrant
    from immured.ledger import Ledger
    from immured.manifest.schema import Manifest
    from immured.service.daemon_keys import DaemonKeys
    from immured.service.manifest_register import Approved, Register
    from immured.service.state import State
    from immured.wire.keys import PrivateKey

__all__ = ["IN_FORCE", "Loaded", "ManifestStore", "settle", "stem_of"]

IN_FORCE: Final = "in_force"
STANDINGS: Final[Mapping[str, str]] = {
    "manifest_revoked": "revoked",
    "denied": "not_allowed",
    "manifest_expired": "expired",
    "manifest_unsigned": "unsigned",
    "manifest_damaged": "damaged",
    "manifest_invalid": "invalid",
}
"""How one stands that would be refused with that code."""
MOST_PARSED: Final = 256
"""That are in memory as they were parsed, up to a megabyte each. Others are read again when they are used."""
_PREFIX: Final = "sha256:"
_NOBODY: Final = Caller(0)
"""Whoever signed did so elsewhere: no peer is asked about."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A manifest that may be used. `approved` None: it is built in."""

    manifest: Manifest
    approved: Approved | None

    @property
    def seq(self) -> int | None:
        """The index of the entry that says it was loaded."""
        return None if self.approved is None else self.approved.seq

    @property
    def by(self) -> str | None:
        """The id of the key that loaded it."""
        return None if self.approved is None else self.approved.key

    @property
    def built_in(self) -> bool:
        """Whether it came with a daemon."""
        return self.approved is None


@dataclass(slots=True, eq=False)
class _Held:
    """One of them. `verified` is how its files looked when all of them were read and were right; None: they are to be
    read again. `contents`: the digests of what was verified then. `changing`: just now the daemon itself writes them.
    """

    digest: str
    names: tuple[str, ...]
    approved: Approved | None
    manifest: Manifest | None = None
    verified: Identity | None = None
    contents: tuple[str, ...] = ()
    damage: str | None = None
    changing: bool = False


_NONE: Final[Mapping[str, _Held]] = {}


class Ground(Protocol):
    """What the store needs of `service.context.Service`."""

    @property
    def state(self) -> State: ...
    @property
    def authority(self) -> Authority: ...
    @property
    def ledger(self) -> Ledger: ...
    @property
    def keys(self) -> DaemonKeys: ...
    @property
    def actor(self) -> Mapping[str, object]: ...


class ManifestStore:
    """The store of one daemon. `register` is as the ledger had it at the start."""

    def __init__(self, service: Ground, register: Register) -> None:
        self._service = service
        self.register = register
        self.files = ManifestFiles(service.state.paths.manifests)
        self.inline = Inline(service.ledger, lambda: service.actor)
        self._calls = granted(service.state.config.profiles)
        self._comparing = asyncio.Lock()
        self._classes = frozenset(service.state.classes.values())
        self._held: dict[str, _Held] = {}
        self._parsed: dict[str, None] = {}
        self._everybodys: dict[str, _Held] = {}
        self._of: dict[str, dict[str, _Held]] = {}
        """Those that are for some tenants alone, by tenant: what is another's is not where one looks."""
        for one in register:
            self._hold(one.digest, one)
        for stem in self.files.stems():
            if _PREFIX + stem not in self._held and self._is_built_in(stem):
                self._hold(_PREFIX + stem, None)

    def look_at_all(self) -> None:
        """At a start: what was damaged meanwhile is said."""
        for held in self._held.values():
            try:
                self._check_files(held)
            except Refused:
                continue

    # -- use

    def use(self, digest: str, tenant: str, now_ms: int) -> Loaded:
        """The manifest of that digest, for a command in that tenant.

        Raises Refused `unknown_manifest` (for another tenant's as for none), `manifest_revoked`, `denied`,
        `manifest_unsigned`, `manifest_expired`, `manifest_damaged`.
        """
        held = self._everybodys.get(digest) or self._of.get(tenant, _NONE).get(digest)
        if held is None:
            raise self.unknown(digest)
        return self._use(held, now_ms)

    def use_again(self, digest: str, now_ms: int) -> None:
        """What lives on that manifest does more. Raises Refused as `use` does; of one that came inline, and of a class
        that is in memory, nothing but the lists is asked."""
        held = None if digest in self._classes else self._held.get(digest)
        if held is None:
            self.check_listed(digest)
        else:
            self._use(held, now_ms)

    def check_listed(self, digest: str) -> None:
        """Raises Refused `manifest_revoked`, `denied`, by policy and ledger. Of every manifest, loaded or not."""
        rules, reasons = self._service.authority.policy.manifests, self.register.reasons
        if rules.only is not None or digest in rules.revoked or digest in reasons:
            check_listed(digest, rules.only, {**dict.fromkeys(rules.revoked, "by policy"), **reasons})

    def enter(self, manifest: Manifest) -> int | None:
        """`manifest_entry` of an intent under it: the index of the entry that has it. None: it is built in.

        One that came inline, and is not in the ledger since this daemon started, enters now, so that it goes with that
        intent. Call it after `admit`, before anything is waited for. Raises Refused `ledger_unavailable`.
        """
        held = self._held.get(manifest.digest)
        if held is not None:
            return None if held.approved is None else held.approved.seq
        return None if manifest.digest in self._classes else self.inline.enter(manifest.digest)

    def unknown(self, digest: str) -> Refused:
        """What is said of one that is not there, or not for who asks."""
        return Refused(
            "unknown_manifest",
            f"no manifest {shown(digest, 80)} is loaded",
            "load it: immure manifest load FILE (`immure manifest list` shows those that are); or send it whole, as "
            "the command line does where no FILE.sig is beside FILE",
        )

    def _use(self, held: _Held, now_ms: int) -> Loaded:
        self.check_listed(held.digest)
        if held.approved is not None:
            self._check_signed(held.approved, now_ms)
        return Loaded(self._check_files(held), held.approved)

    def built_in(self, digest: str) -> bool:
        """Whether it came with this daemon, or an earlier version of it."""
        held = self._held.get(digest)
        return digest in self._classes if held is None else held.approved is None

    # -- how they stand

    def digests(self, tenant: str) -> list[str]:
        """Of all that the tenant may name, and that were not revoked."""
        named = {**self._everybodys, **self._of.get(tenant, _NONE)}
        return sorted(digest for digest in named if self.register.revoked(digest) is None)

    def everything(self) -> Iterator[tuple[str, Approved | None]]:
        """Digests and records: the built-in ones, then the others in the order in which they were loaded."""
        yield from ((one.digest, None) for one in self._held.values() if one.approved is None)
        yield from ((one.digest, one) for one in self.register)

    def find(self, digest: str, tenant: str | None) -> Approved | None:
        """How one that the tenant may use was loaded; None for one that is built in. Without a tenant, anybody's.

        Raises Refused `unknown_manifest`.
        """
        held = self._everybodys.get(digest) or (self._held if tenant is None else self._of.get(tenant, _NONE)).get(
            digest
        )
        if held is None:
            raise self.unknown(digest)
        return held.approved

    def standing(self, digest: str, now_ms: int) -> str:
        """`in_force`, or why it is not: one of STANDINGS. Raises Refused `unknown_manifest`."""
        held = self._held.get(digest)
        if held is None:
            raise self.unknown(digest)
        try:
            self._use(held, now_ms)
        except Refused as error:
            return STANDINGS.get(error.code, error.code)
        return IN_FORCE

    def manifest(self, digest: str) -> Manifest:
        """What it says, however it stands. Raises Refused `unknown_manifest`, `manifest_damaged`."""
        held = self._held.get(digest)
        if held is None:
            raise self.unknown(digest)
        return self._check_files(held)

    def read(self, digest: str) -> tuple[bytes, bytes]:
        """Its file, and its signatures (none of a built-in one). Raises Refused as `manifest` does."""
        held = self._held.get(digest)
        if held is None:
            raise self.unknown(digest)
        self._check_files(held)
        try:
            copy = self.files.read(stem_of(digest), detached=held.approved is not None)
        except DamagedError as error:
            raise self._damaged(held, error) from error
        return copy.raw, copy.signatures or b""

    # -- judged before they are loaded

    async def judge(
        self, warrant: Warrant, raw: bytes, signatures: bytes, now_ms: int, *, whole: bool = False
    ) -> Judged:
        """What the pipeline says of a file, by whoever this command is given. Nothing is stored.

        The comparison is made in a thread, one at a time: nobody's file holds up what others ask.
        """
        rules = self._rules(warrant, now_ms)
        examined = examine(raw, signatures, rules, now_ms, whole=whole)
        if examined.baseline is None:
            return examined
        async with self._comparing:
            return await asyncio.to_thread(compare, examined, rules.calls)

    def _rules(self, warrant: Warrant, now_ms: int) -> Rules:
        service, actor = self._service, warrant.actor
        authority, policy = service.authority, service.authority.policy
        everywhere = warrant.anywhere
        records = [one for one in authority.keyring if everywhere or self._is_seen(one, actor.tenant)]
        seen = {one.id for one in records}
        # Another tenant's passes no later stage: that it was loaded here, and why no more, is not said.
        revoked = {
            digest: reason
            for digest, reason in self.register.reasons.items()
            if everywhere or (approved := self.register.find(digest)) is None or approved.is_for(actor.tenant)
        }

        def find(key_id: str) -> SignerKey | None:
            record = authority.find(key_id) if key_id in seen else None
            if record is None:
                return None
            standing = record.standing(now_ms)
            problem = "" if standing == "active" else f"is {standing.replace('_', ' ')}"
            return SignerKey(record.public, record.name, authority.line(record.id), problem)

        return Rules(
            needed=policy.manifests.signatures,
            only=policy.manifests.only,
            revoked={**dict.fromkeys(policy.manifests.revoked, "by policy"), **revoked},
            find=find,
            may_sign=lambda key_id, class_, tenants: self._may_sign(authority.find(key_id), class_, tenants, now_ms),
            personas={*policy.roles, *(name for one in records for name in one.personas)},
            tenants=policy.tenants if everywhere else {actor.tenant},
            baseline=lambda manifest: self._baseline(manifest, now_ms, None if everywhere else actor.tenant),
            calls=self._calls,
            check_syscalls=lambda asked: named_calls(
                asked.profile, asked.allow, asked.deny, service.state.config.profiles
            ),
        )

    def _is_seen(self, record: KeyRecord, tenant: str) -> bool:
        return tenant in (record.tenants or {DEFAULT}) or self._service.authority.is_hosts(record)

    def _baseline(self, manifest: Manifest, now_ms: int, seen_by: str | None) -> Manifest | None:
        """The last approved one of that name that somebody of its tenants may use, and that is in force. `seen_by`: of
        those that this tenant may use, as what it is compared with is told; None: of all."""
        for one in self.register.latest():
            if one.name != manifest.name or not (seen_by is None or one.is_for(seen_by)):
                continue
            if one.tenants and manifest.tenants and not set(one.tenants) & set(manifest.tenants):
                continue
            try:
                return self._use(self._held[one.digest], now_ms).manifest
            except Refused:
                continue
        return None

    # -- whose signatures count

    def _check_signed(self, approved: Approved, now_ms: int) -> None:
        """Raises Refused `manifest_unsigned`, `manifest_expired`."""
        needed = self._service.authority.policy.manifests.signatures
        line = self._service.authority.line
        good = [one for one in approved.signers if self._counts(one.key, approved, now_ms)]
        if len({line(one.key) for one in good if now_ms < one.expires_ms}) >= needed:
            return
        details = {"manifest": approved.digest, "needed": needed}
        if len({line(one.key) for one in good}) >= needed:
            raise Refused(
                "manifest_expired",
                f"the signatures of the manifest {approved.name!r} ({approved.digest}) have expired",
                "have it signed anew, and loaded again: immure manifest sign, immure manifest load",
                details=details | {"expires_ms": max(one.expires_ms for one in good)},
            )
        lost = ", ".join(repr(one.name) for one in approved.signers if one not in good)
        why = f"the keys of {lost} may not sign it any more" if lost else "policy asks for more than it has"
        raise Refused(
            "manifest_unsigned",
            f"the manifest {approved.name!r} ({approved.digest}) has too few signatures, of {needed}: {why}",
            "have it signed by keys that may `manifest.sign` it, and loaded again",
            details=details,
        )

    def _counts(self, key_id: str, approved: Approved, now_ms: int) -> bool:
        """Whether what that key signed then counts now. A key that merely expired, or that another took the place of,
        signed while it served; one that was suspended or revoked may not have been its owner's."""
        authority = self._service.authority
        record = authority.find(key_id)
        if record is None or record.status != "active":
            return False
        last = authority.last_of(record)
        return last.status == "active" and self._may_sign(last, approved.class_, approved.tenants, now_ms)

    def _may_sign(self, record: KeyRecord | None, class_: str, tenants: Iterable[str], now_ms: int) -> bool:
        """Under its own role, in every one of those tenants; without any, on the host."""
        if record is None:
            return False
        decider = self._service.authority.decider
        home = min(record.tenants or {DEFAULT})
        if not tenants:
            return decider.holds(
                Actor(record, _NOBODY, record.role, tenant=home), SIGNING, now_ms, Target(HOST, "", (), class_)
            )
        return all(
            decider.holds(
                Actor(record, _NOBODY, record.role, tenant=tenant, project=project),
                SIGNING,
                now_ms,
                Target(tenant, project, (), class_),
            )
            for tenant, project in self.places(tenants)
        )

    def places(self, tenants: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Every project of these tenants: in all of them what is loaded for a tenant can be used."""
        declared = self._service.authority.policy.tenants
        for tenant in tenants:
            found = declared.get(tenant)
            yield from ((tenant, project) for project in sorted({DEFAULT} if found is None else found.projects))

    # -- the files

    def _hold(self, digest: str, approved: Approved | None) -> _Held:
        names = self.files.names(stem_of(digest), detached=approved is not None)
        held = self._held[digest] = _Held(digest, names, approved)
        if approved is None or not approved.tenants:
            self._everybodys[digest] = held
        for tenant in () if approved is None else approved.tenants:
            self._of.setdefault(tenant, {})[digest] = held
        return held

    def _is_built_in(self, stem: str) -> bool:
        """Whether a file that no entry speaks of is one that the daemon signed of its own accord: what was half loaded
        when a daemon died has detached signatures, and none of the daemon's."""
        signed = self.files.has(stem, "sig")
        return signed and not (self.files.has(stem, "signatures") or self.files.has(stem, "signatures.next"))

    def _check_files(self, held: _Held) -> Manifest:
        """As they were loaded, to the byte. Raises Refused `manifest_damaged`, `manifest_invalid`."""
        if held.manifest is not None and (held.changing or self._is_as_it_was(held)):
            return held.manifest
        try:
            raw = self._verified(held)
        except DamagedError as error:
            held.verified = None
            raise self._damaged(held, error) from error
        held.damage = None
        if held.manifest is None:
            held.manifest = parse_toml(raw)
            self._make_room(held.digest)
        return held.manifest

    def _make_room(self, digest: str) -> None:
        """That one was parsed: of too many the first are let go of."""
        self._parsed[digest] = None
        for other in list(self._parsed)[: max(0, len(self._parsed) - MOST_PARSED)]:
            if other != digest and not self._held[other].changing:
                del self._parsed[other]
                self._held[other].manifest = None

    def _is_as_it_was(self, held: _Held) -> bool:
        if held.verified is None:
            return False
        try:
            return identity_of(held.names) == held.verified
        except OSError:
            return False

    def _verified(self, held: _Held) -> bytes:
        """All of it, read. Raises DamagedError."""
        stem, approved = stem_of(held.digest), held.approved
        copy = self.files.read(stem, detached=approved is not None)
        contents = tuple(digest_of(one) for one in (copy.raw, copy.own, copy.signatures or b""))
        if contents != held.contents:
            if contents[0] != held.digest:
                raise DamagedError(f"{stem}.toml", "its name is not its digest")
            if approved is not None and contents[2] != approved.signatures:
                raise DamagedError(f"{stem}.signatures", "they are not those that it was loaded with")
            check_own(f"{stem}.sig", copy.raw, copy.own, self._service.keys.known)
            held.contents = contents
        held.verified = copy.identity if copy.settled else None
        return copy.raw

    def _damaged(self, held: _Held, error: DamagedError) -> Refused:
        """Said in the ledger once, until it is whole again."""
        held.contents = ()
        if held.damage is None:
            held.damage = str(error)
            data: dict[str, object] = {"digest": held.digest, "file": error.file, "message": error.why}
            if held.approved is not None:
                data["name"] = held.approved.name
            service = self._service
            try:
                service.ledger.entry(entry_types.MANIFEST_DAMAGED, service.actor, data)
            except Refused:
                held.damage = None
        return Refused(
            "manifest_damaged",
            f"the manifest {held.digest} is not as it was loaded: {error}",
            "find out who wrote there; then put the file back from a backup, or load it again",
            details={"manifest": held.digest, "file": error.file},
        )

    # -- changed, in one's turn (`service.deciding`)

    @contextlib.contextmanager
    def writing(self, digest: str) -> Iterator[None]:
        """Within, the daemon itself writes its files: nothing is found out from how they look."""
        held = self._held.get(digest)
        if held is None:
            yield
            return
        with contextlib.suppress(Refused):
            self._check_files(held)  # what it says is at hand from here on
        held.changing = True
        try:
            yield
        finally:
            held.changing = False

    def put_in_force(self, approved: Approved, manifest: Manifest) -> None:
        """Its entry is durable, and its files are in place."""
        self._hold(approved.digest, approved).manifest = manifest
        self._make_room(approved.digest)


def settle(
    files: ManifestFiles, register: Register, classes: Iterable[bytes], keys: Sequence[PrivateKey]
) -> list[DamagedError]:
    """At a start, before anything is used: what a daemon that died left half done is finished, and the built-in classes
    of this version are there. What of them was there and was not right is put right, and said. Raises OSError."""
    for one in register:
        with contextlib.suppress(DamagedError, IsADirectoryError):
            files.finish(stem_of(one.digest), one.signatures, keys, starting=True)
    mended = [files.mend_built_in(keys, raw) for raw in classes if register.find(digest_of(raw)) is None]
    return [one for one in mended if one is not None]


def stem_of(digest: str) -> str:
    """What its files are called."""
    return digest.removeprefix(_PREFIX)
