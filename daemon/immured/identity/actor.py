"""Who gives a command, established: the key that verified, the process behind the connection, the names it carries.

`bind` says whether this peer may present that key, under these names, now. What may be done under them is another
question (`identity.authority`): a name that is carried narrows or directs, and widens nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from immured.errors import Refused
from immured.identity.keyring import KeyRecord, Role, check_label

if TYPE_CHECKING:
    from immured.identity.policy.warrant import Narrowing, Target

__all__ = ["DEFAULT", "SPEAK", "Actor", "Caller", "Link", "Names", "bind", "check_peer"]

DEFAULT: Final = "default"
"""The tenant, and in each tenant the project, of whoever names none."""
SPEAK: Final = "speak"
"""The right to carry any `sub`."""

_MAX_SUB: Final = 256
_MAX_SESSION: Final = 64


@dataclass(frozen=True, slots=True)
class Caller:
    """The process that called connect(), as the kernel told the launcher at accept. None: not known.

    `exe` is what the launcher read in /proc: for those who read the ledger. Nothing is decided by it, as it names a
    file and not what runs.
    """

    uid: int
    gid: int | None = None
    pid: int | None = None
    groups: tuple[int, ...] = ()
    exe: str | None = None


class Link(Protocol):
    """One certificate of a chain, as far as an actor needs it."""

    @property
    def issuer(self) -> str:
        """The id of the key that signed it."""

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of its payload."""

    @property
    def narrowing(self) -> Narrowing:
        """What it passes on of its issuer's rights."""

    @property
    def exp(self) -> int:
        """When it expires, ms since the epoch."""

    @property
    def commands(self) -> int | None:
        """How many commands it is good for; None: it does not count them."""

    @property
    def sub(self) -> str | None:
        """On whose behalf all is done that is done by it; None: it does not say."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who gives a command. `role` is the one whose rights it has: the key's, or the one that `persona` names.

    `chain` are the certificates by which a key that is not in the keyring acts, the keyring key's own first; `record`
    is then made of the last, and `anchor` is the record of the keyring's key.
    """

    record: KeyRecord
    caller: Caller
    role: str
    persona: str | None = None
    tenant: str = DEFAULT
    project: str = DEFAULT
    sub: str | None = None
    session: str | None = None
    chain: tuple[Link, ...] = ()
    anchor: KeyRecord | None = None

    @property
    def uid(self) -> int:
        """The peer's user."""
        return self.caller.uid

    @property
    def key_id(self) -> str:
        """The id of the key that signed."""
        return self.record.id

    @property
    def root(self) -> KeyRecord:
        """The keyring's record behind it all: the key's own, or the one that its chain hangs on."""
        return self.record if self.anchor is None else self.anchor

    @property
    def owners(self) -> tuple[str, ...]:
        """Whose it is what this actor makes: its own key's, then those by which that one was certified."""
        return (self.record.id, *(link.issuer for link in reversed(self.chain)))

    @property
    def identities(self) -> tuple[str, ...]:
        """Whose things are this actor's own: its key's, and those of the keys that it took the place of."""
        return (self.record.id, *self.record.predecessors)

    def owns(self, target: Target) -> bool:
        """Whether that is its own, in the tenant that the command is given under."""
        return target.tenant == self.tenant and any(one in target.owners for one in self.identities)

    def to_map(self) -> dict[str, object]:
        """`actor` of a ledger entry: what is not known, or is the default, is left out."""
        caller = self.caller
        shown: dict[str, object] = {"key": self.record.id, "name": self.record.name, "uid": caller.uid}
        if caller.gid is not None:
            shown["gid"] = caller.gid
        if caller.pid is not None:
            shown["pid"] = caller.pid
        if caller.exe is not None:
            shown["exe"] = caller.exe
        shown["role"] = self.role
        if self.persona is not None:
            shown["persona"] = self.persona
        if self.tenant != DEFAULT:
            shown["tenant"] = self.tenant
        if self.project != DEFAULT:
            shown["project"] = self.project
        if self.sub is not None:
            shown["sub"] = self.sub
        if self.session is not None:
            shown["session"] = self.session
        if self.chain:
            shown["root"] = self.root.id
            shown["chain"] = [link.digest for link in self.chain]
        return shown

    def counted(self) -> dict[str, object]:
        """What an entry says besides, where certificates count commands: their digests, and when each expires."""
        exps = {link.digest: link.exp for link in self.chain if link.commands is not None}
        return {"counted": exps} if exps else {}


class Names(Protocol):
    """What a policy says of the names that a command carries."""

    def is_role(self, name: str) -> bool:
        """Whether the policy has that role."""

    def roles(self, role: str) -> frozenset[str]:
        """That role and all that it includes; of one that there is not, nothing."""

    def holds(self, actor: Actor, right: str, now_ms: int) -> bool:
        """Whether the actor has a right that is no command."""


def bind(
    record: KeyRecord,
    caller: Caller,
    names: Names,
    now_ms: int,
    *,
    persona: str | None = None,
    tenant: str | None = None,
    project: str | None = None,
    sub: str | None = None,
    session: str | None = None,
    chain: tuple[Link, ...] = (),
    anchor: KeyRecord | None = None,
) -> Actor:
    """May this peer present that key, under these names, now? Whether the key may be used in the tenant is asked with
    the deed (`identity.policy.decide`): some deeds reach further than others.

    Raises Refused `key_suspended` and its like (`KeyRecord.check_usable`), `peer_not_bound`, `denied`, `bad_argument`.
    """
    record.check_usable(now_ms)
    check_peer(record, caller)
    actor = Actor(
        record,
        caller,
        record.role if persona is None else _role(record, names, check_label(persona, "persona")),
        persona,
        _placed(record, record.tenants, tenant, "tenant"),
        _placed(record, record.projects, project, "project"),
        session=None if session is None else _session(session),
        chain=chain,
        anchor=anchor,
    )
    return actor if sub is None else replace(actor, sub=_subject(actor, names, sub, now_ms))


def check_peer(record: KeyRecord, caller: Caller) -> None:
    """Whether that key is bound to such a peer, or to none. Raises Refused `peer_not_bound`."""
    if record.uids and caller.uid not in record.uids:
        raise _not_bound(record, f"users than uid {caller.uid}", "user")
    if record.gids and record.gids.isdisjoint((caller.gid, *caller.groups)):
        raise _not_bound(record, f"groups than those of uid {caller.uid}", "group")


def _not_bound(record: KeyRecord, others: str, what: str) -> Refused:
    return Refused(
        "peer_not_bound",
        f"the key {record.name!r} is bound to other {others}",
        f"connect as a {what} that the key is bound to, or add a key for this one",
    )


def _role(record: KeyRecord, names: Names, persona: str) -> str:
    """The role whose rights a command under that persona has. Raises Refused `denied`."""
    if names.is_role(persona):
        if persona in record.personas or persona in names.roles(record.role):
            return persona
    elif persona in record.personas or record.role == Role.ADMIN:
        return record.role  # a label, for manifests that are for some personas alone
    raise Refused(
        "denied",
        f"the key {record.name!r} may not act under the persona {persona!r}",
        "leave `persona` out, or have the key bound to that persona",
        details={"persona": persona, "role": record.role},
    )


def _placed(record: KeyRecord, bound: frozenset[str], named: str | None, what: str) -> str:
    """Whoever names none means the default, or the only one that the key is bound to."""
    if named is not None:
        return check_label(named, what)
    if not bound or DEFAULT in bound:
        return DEFAULT
    if len(bound) == 1:
        return next(iter(bound))
    raise Refused(
        "denied",
        f"the key {record.name!r} is bound to {len(bound)} {what}s, and the command names none",
        f"name the {what} that is meant: {', '.join(sorted(bound))}",
        details={"role": record.role},
    )


def _session(session: str) -> str:
    if len(session) > _MAX_SESSION or not session.isascii() or not session.isprintable():
        raise Refused("bad_argument", "`session` is no session's id", "name what `session.open` answered")
    return session


def _subject(actor: Actor, names: Names, sub: str, now_ms: int) -> str:
    if len(sub.encode()) > _MAX_SUB or not sub.isprintable():
        raise Refused("bad_argument", "`sub` is not printable or too long", f"at most {_MAX_SUB} bytes of text")
    if sub in actor.record.subjects or names.holds(actor, SPEAK, now_ms):
        return sub
    raise Refused(
        "denied",
        f"the key {actor.record.name!r} may not speak for {sub!r}",
        "leave `sub` out, have it among the key's `subjects`, or use a role with the right `speak`",
        details={"permission": SPEAK, "role": actor.role},
    )
