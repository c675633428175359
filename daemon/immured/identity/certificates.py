"""Chains of certificates: by which a key that is not in the keyring acts, and never for more than its issuers may.

Sans-I/O, the clock passed in. A connection presents its chain, link by link, the keyring key's own first (`Presented`).
What it gives is decided at each command: the first key's rights at that moment, narrowed by every link
(`identity.policy`), in its time, unless a key on the way is barred (`Chain.check`), and as often as it says (`Uses`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from immured.errors import Refused
from immured.identity.keyring import KeyRecord
from immured.identity.policy.warrant import Narrowing
from immured.wire.certificate import MAX_CHAIN, Certificate, parse_certificate
from immured.wire.envelope import Envelope, verify
from immured.wire.keys import PublicKey
from immured.wire.messages import SKEW_MS
from immured.wire.strict import shown

__all__ = ["MAX_COUNTED", "MAX_PRESENTED", "Chain", "Link", "Presented", "Uses"]

MAX_PRESENTED: Final = 64
"""Keys that one connection speaks for by certificate."""
MAX_COUNTED: Final = 4096
"""Certificates of one keyring key whose commands are counted at a time."""


@dataclass(frozen=True, slots=True)
class Link:
    """One verified certificate. `issuer`: the id of the key that signed it; `digest`: `sha256:<hex>` of its payload."""

    issuer: str
    digest: str
    certificate: Certificate
    narrowing: Narrowing = field(init=False)
    """What it leaves of its issuer's rights."""

    def __post_init__(self) -> None:
        said = self.certificate
        narrowing = Narrowing(
            said.permissions,
            said.tenants or None,
            said.projects or None,
            said.classes or None,
            tuple(sorted(said.labels.items())),
            said.exp,
        )
        object.__setattr__(self, "narrowing", narrowing)

    @property
    def exp(self) -> int:
        """When it expires, ms since the epoch."""
        return self.certificate.exp

    @property
    def commands(self) -> int | None:
        """How many commands it is good for; None: it does not count them."""
        return self.certificate.commands

    @property
    def sub(self) -> str | None:
        """On whose behalf all its commands are; None: it does not say."""
        return self.certificate.sub


@dataclass(frozen=True, slots=True)
class Chain:
    """Links from a key in the keyring to the one that acts, in this order."""

    links: tuple[Link, ...]

    @property
    def root(self) -> str:
        """The id of the key in the keyring: whose rights these are."""
        return self.links[0].issuer

    @property
    def public(self) -> PublicKey:
        """The key that acts."""
        return self.links[-1].certificate.public

    @property
    def sub(self) -> str | None:
        """On whose behalf all is done; `Presented.add` saw to it that no two links differ."""
        return next((link.sub for link in self.links if link.sub is not None), None)

    @property
    def depth(self) -> int:
        """How many links may follow: what every one on the way leaves."""
        left = MAX_CHAIN
        for link in self.links:
            left = min(left - 1, link.certificate.depth)
        return left

    def record(self, root: KeyRecord) -> KeyRecord:
        """The acting key as the keyring would have it: its issuer's role and bindings, of which it loses what its
        certificates do not name. It is no key that the issuer replaced, nor one that replaced it."""
        tenants, projects = root.tenants, root.projects
        for link in self.links:
            tenants = tenants & link.certificate.tenants or tenants
            projects = projects & link.certificate.projects or projects
        name = "/".join([root.name, *(link.certificate.name for link in self.links)])
        return replace(
            root, public=self.public, name=name, tenants=tenants, projects=projects, predecessors=(), successor=None
        )

    def check(self, now_ms: int, barred: Container[str] = ()) -> None:
        """Whether every link holds now. Raises Refused `certificate_expired`, `certificate_not_yet_valid`,
        `key_revoked`."""
        for link in self.links:
            _check_time(link.certificate, now_ms)
            if link.certificate.public.id in barred:
                raise Refused(
                    "key_revoked",
                    f"the certified key {link.certificate.name!r} ({link.certificate.public.id}) was revoked",
                    "have a new key certified",
                    details={"key": link.certificate.public.id},
                )

    def behalf(self, named: str | None) -> str | None:
        """The `sub` of a command that names that one, or none. Raises Refused `denied`."""
        fixed = self.sub
        if fixed is not None and named not in (None, fixed):
            raise Refused(
                "denied",
                f"the certificate is for work on behalf of {shown(fixed)}, not of {shown(named or '')}",
                "leave `sub` out",
                details={"sub": fixed},
            )
        return fixed or named

    @property
    def counted(self) -> dict[str, int]:
        """Digest to expiry of the links that count commands: what the entry of each command says, as `counted`."""
        return {link.digest: link.certificate.exp for link in self.links if link.certificate.commands is not None}


class Presented:
    """The chains that one connection has presented, by the key that each ends in."""

    __slots__ = ("_chains", "_records")

    def __init__(self) -> None:
        self._chains: dict[str, Chain] = {}
        self._records: dict[str, tuple[KeyRecord, KeyRecord]] = {}

    def public_key(self, key_id: str) -> PublicKey | None:
        """For `wire.envelope.verify`, behind the keyring's own."""
        chain = self._chains.get(key_id)
        return None if chain is None else chain.public

    def chain(self, key_id: str) -> Chain | None:
        """By which chain that key acts."""
        return self._chains.get(key_id)

    def record(self, key_id: str, root: KeyRecord) -> KeyRecord:
        """`Chain.record` of that key. The very same one for as long as `root` is: decisions are remembered by it."""
        found = self._records.get(key_id)
        if found is None or found[0] is not root:
            found = self._records[key_id] = (root, self._chains[key_id].record(root))
        return found[1]

    def add(
        self,
        envelope: Envelope,
        find: Callable[[str], KeyRecord | None],
        now_ms: int,
        audiences: Collection[str],
        barred: Container[str] = (),
    ) -> Chain:
        """Takes one certificate, whose issuer the keyring or this connection knows. One for the same key replaces the
        one before, so that it can be renewed.

        Raises Refused `unsigned`, `unknown_key`, `bad_signature` (nothing was read yet), `bad_certificate`,
        `bad_msgpack`, `unknown_field`, `wrong_audience`, `certificate_expired`, `certificate_not_yet_valid`,
        `key_revoked`, `too_many_certificates`.
        """
        if len(envelope.signatures) > 1:
            raise _bad("a certificate has one signature, its issuer's", "sign one certificate an issuer")

        def known(key_id: str) -> PublicKey | None:
            record = find(key_id)
            return self.public_key(key_id) if record is None else record.public

        issuer = verify(envelope, known)
        certificate = parse_certificate(envelope.payload)
        before = () if find(issuer) is not None else self._chains[issuer].links
        digest = "sha256:" + hashlib.sha256(envelope.payload).hexdigest()
        chain = Chain((*before, Link(issuer, digest, certificate)))
        self._check(chain, find)
        if certificate.aud and not certificate.aud & set(audiences):
            raise Refused(
                "wrong_audience",
                f"the certificate is for {', '.join(map(shown, sorted(certificate.aud)[:4]))}, not for this daemon",
                "have one issued for this daemon's key id or audience name, or for any (no aud)",
            )
        chain.check(now_ms, barred)
        subject = certificate.public.id
        if subject not in self._chains and len(self._chains) >= MAX_PRESENTED:
            raise Refused(
                "too_many_certificates",
                f"this connection speaks for {MAX_PRESENTED} keys already",
                "use another connection",
            )
        self._chains[subject] = chain
        self._records.pop(subject, None)
        return chain

    def _check(self, chain: Chain, find: Callable[[str], KeyRecord | None]) -> None:
        *before, last = chain.links
        if before and Chain(tuple(before)).depth < 1:
            raise _bad(
                f"{before[-1].certificate.name!r} may not certify others",
                f"have its own certificate issued with a depth (0 to {MAX_CHAIN - 1})",
            )
        subject = last.certificate.public.id
        if find(subject) is not None:
            raise _bad(f"{subject} stands in the keyring itself", "sign with it as it is, or certify another key")
        if subject in {link.issuer for link in chain.links}:
            raise _bad(f"{subject} certifies itself", "certify another key")
        if len({link.sub for link in chain.links} - {None}) > 1:
            raise _bad("it names another `sub` than its issuer's certificate", "leave `sub` out: it is inherited")


class Uses:
    """How many commands were given under each certificate that counts them: a fold over the ledger's entries, and what
    is on its way there.

    `take` reserves one for a command, `settle` ends that; `note` is the entry that holds the command, which may come
    before or after. Nothing is forgotten before the certificate expired.
    """

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, tuple[int, int]]] = {}
        """By the id of the keyring's key: digest -> (commands, when it expires)."""
        self._flying: dict[str, set[tuple[str, bytes]]] = {}

    def take(self, chain: Chain, nonce: bytes, now_ms: int) -> None:
        """One command more. Raises Refused `certificate_used_up`; `busy` where too many are counted at a time."""
        counted = chain.counted
        if not counted:
            return
        of_root = self._of(chain.root, now_ms)
        for link in chain.links:
            most = link.certificate.commands
            if most is None:
                continue
            used = of_root.get(link.digest, (0, 0))[0] + len(self._flying.get(link.digest, ()))
            if used >= most:
                raise Refused(
                    "certificate_used_up",
                    f"the certificate of {link.certificate.name!r} was for {most} commands, and they were given",
                    "have a new one issued",
                    details={"certificate": link.digest, "limit": most, "used": used},
                )
        if len(of_root.keys() | counted.keys()) > MAX_COUNTED:
            raise Refused(
                "busy",
                f"{MAX_COUNTED} certificates of one key are counted already",
                "use those that there are, or issue them without `commands`",
            )
        flight = (chain.public.id, nonce)
        for digest, exp in counted.items():
            of_root.setdefault(digest, (0, exp))
            self._flying.setdefault(digest, set()).add(flight)

    def settle(self, chain: Chain, nonce: bytes) -> None:
        """The command is over: what it reserved and no entry holds is free again."""
        flight = (chain.public.id, nonce)
        for digest in chain.counted:
            flying = self._flying.get(digest)
            if flying is not None:
                flying.discard(flight)
                if not flying:
                    del self._flying[digest]

    def note(self, root: str, key_id: str, nonce: bytes, counted: Mapping[str, int]) -> None:
        """An entry of the ledger says that this command was given. Each command is noted once."""
        of_root = self._counts.setdefault(root, {})
        for digest, exp in counted.items():
            used, _ = of_root.get(digest, (0, exp))
            of_root[digest] = (used + 1, exp)
            if digest in self._flying:
                self._flying[digest].discard((key_id, nonce))

    def used(self, root: str, digest: str) -> int:
        """Commands that the ledger holds."""
        return self._counts.get(root, {}).get(digest, (0, 0))[0]

    def to_map(self) -> dict[str, dict[str, list[int]]]:
        """For JSON: root -> digest -> [commands, expiry]. What flies is not in it: its entries will be."""
        held = {
            root: {digest: [used, exp] for digest, (used, exp) in sorted(found.items()) if used}
            for root, found in sorted(self._counts.items())
        }
        return {root: found for root, found in held.items() if found}

    @classmethod
    def from_map(cls, given: Mapping[str, Mapping[str, Iterable[int]]]) -> Uses:
        """The inverse of `to_map`. Raises ValueError for anything else."""
        made = cls()
        for root, found in given.items():
            made._counts[root] = {}
            for digest, pair in found.items():
                used, exp = pair
                if type(used) is not int or type(exp) is not int or used < 1:
                    raise ValueError(f"{digest[:80]!r} is not counted by two integers")
                made._counts[root][digest] = (used, exp)
        return made

    def _of(self, root: str, now_ms: int) -> dict[str, tuple[int, int]]:
        """That key's, without those that expired."""
        of_root = self._counts.setdefault(root, {})
        if len(of_root) >= MAX_COUNTED // 2:
            for digest in [digest for digest, (_, exp) in of_root.items() if exp + SKEW_MS <= now_ms]:
                del of_root[digest]
        return of_root


def _check_time(certificate: Certificate, now_ms: int) -> None:
    said: dict[str, object] = {"now_ms": now_ms, "nbf": certificate.nbf, "exp": certificate.exp}
    if now_ms < certificate.nbf - SKEW_MS:
        early = certificate.nbf - now_ms
        raise Refused(
            "certificate_not_yet_valid",
            f"the certificate of {certificate.name!r} holds in {early} ms",
            "wait, or compare the clocks of both sides",
            details=said,
        )
    if now_ms >= certificate.exp:
        late = now_ms - certificate.exp
        raise Refused(
            "certificate_expired",
            f"the certificate of {certificate.name!r} expired {late} ms ago",
            "have a new one issued, and present it",
            details=said,
        )


def _bad(message: str, remedy: str) -> Refused:
    return Refused("bad_certificate", message, remedy)
