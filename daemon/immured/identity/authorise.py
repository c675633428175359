"""The one place that decides who may do what. Pure: a key's record, the peer's uid, a permission; yes or a typed no.

Every command declares the permission that it needs (`service.commands`); one that declares none does not load.
A peer's uid only ever narrows what a signature may do; it never widens it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from immured.errors import Refused
from immured.identity.keyring import KeyRecord, Role, check_label

__all__ = ["GRANTED", "Actor", "Permission", "bind", "may", "require"]

DEFAULT_TENANT: Final = "default"
_MAX_SUB: Final = 256


class Permission(StrEnum):
    """What can be allowed, one name a thing."""

    RUN = "run"
    RUN_INLINE = "run.inline-manifest"
    PLAN = "plan"
    STATUS = "status"
    KILL_OWN = "kill.own"
    KILL_ANY = "kill.any"
    KEY_ADD = "key.add"
    KEY_LIST = "key.list"


GRANTED: Final[dict[Role, frozenset[Permission]]] = {
    Role.ADMIN: frozenset(Permission),
    Role.RUNNER: frozenset(
        {Permission.RUN, Permission.RUN_INLINE, Permission.PLAN, Permission.STATUS, Permission.KILL_OWN}
    ),
}


@dataclass(frozen=True, slots=True)
class Actor:
    """Who gives a command, established: the key that verified, the peer's uid, and the names that it may carry."""

    record: KeyRecord
    uid: int
    persona: str | None = None
    tenant: str = DEFAULT_TENANT
    sub: str | None = None

    @property
    def key_id(self) -> str:
        """The id of the key that signed."""
        return self.record.id

    def to_map(self) -> dict[str, object]:
        """`actor` of a ledger entry."""
        shown: dict[str, object] = {"key": self.record.id, "name": self.record.name, "uid": self.uid}
        if self.persona is not None:
            shown["persona"] = self.persona
        if self.tenant != DEFAULT_TENANT:
            shown["tenant"] = self.tenant
        if self.sub is not None:
            shown["sub"] = self.sub
        return shown


def bind(
    record: KeyRecord, uid: int, *, persona: str | None = None, tenant: str | None = None, sub: str | None = None
) -> Actor:
    """May this peer present that key, under these names? Raises Refused `peer_not_bound`, `denied`, `bad_argument`."""
    if record.uids and uid not in record.uids:
        raise Refused(
            "peer_not_bound",
            f"the key {record.name!r} is bound to other users than uid {uid}",
            "connect as the user that the key is bound to, or add a key for this one",
        )
    if persona is not None:
        _check_carried(record, check_label(persona, "persona"), record.personas, "persona")
    if tenant is not None:
        _check_carried(record, check_label(tenant, "tenant"), record.tenants, "tenant")
    if sub is not None and (len(sub.encode()) > _MAX_SUB or not sub.isprintable()):
        raise Refused("bad_argument", "`sub` is not printable or too long", f"at most {_MAX_SUB} bytes of text")
    return Actor(record, uid, persona, DEFAULT_TENANT if tenant is None else tenant, sub)


def may(actor: Actor, permission: Permission) -> bool:
    """Whether the actor's role is granted that permission."""
    return permission in GRANTED[actor.record.role]


def require(actor: Actor, permission: Permission, what: str) -> None:
    """Raises Refused `denied` where `may` says no; `what` names the deed for the message."""
    if not may(actor, permission):
        raise Refused(
            "denied",
            f"the key {actor.record.name!r} ({actor.record.role.value}) may not {what}",
            "use a key whose role allows it; an admin can add one with `immure key add`",
            details={"permission": permission.value, "role": actor.record.role.value},
        )


def _check_carried(record: KeyRecord, name: str, carried: frozenset[str], what: str) -> None:
    if name not in carried and record.role is not Role.ADMIN:
        raise Refused(
            "denied",
            f"the key {record.name!r} may not act under the {what} {name!r}",
            f"leave `{what}` out, or have the key bound to that {what}",
        )
