"""`immure policy explain --file`: the question that a daemon answers with `policy.explain`, asked of a file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from immured.errors import ConfigurationError, Refused
from immured.identity.actor import Caller, bind
from immured.identity.policy.decide import Decider
from immured.identity.policy.explain import explain
from immured.identity.policy.permissions import PERMISSIONS
from immured.identity.policy.schema import DEFAULT_PROJECT, DEFAULT_TENANT
from immured.identity.policy.space import Subject
from immured.identity.policy.warrant import Target, place_of
from immured.wire.strict import nearest

if TYPE_CHECKING:
    from immured.identity.actor import Actor
    from immured.identity.keyring import KeyRecord
    from immured.identity.policy.schema import Policy

__all__ = ["explained"]

_NOBODY = "ed25519:" + 32 * "0"


def explained(
    policy: Policy,
    args: Mapping[str, object],
    role: str | None,
    records: Collection[KeyRecord] | None,
    now_ms: int,
) -> dict[str, object]:
    """The answer to `policy.explain` with these `args`, but for a key that is `role` alone where that is given.

    Raises ConfigurationError `bad_argument`, for what or who is not there.
    """
    permission, decider = str(args["cmd"]), Decider(policy)
    if permission not in PERMISSIONS:
        raise _unknown("permission", permission, PERMISSIONS)
    try:
        actor = _actor(decider, args, role, records, now_ms)
    except Refused as refusal:
        return {"permission": permission, "allowed": False, "why": refusal.message, "rules": [], "controls": []}
    found = explain(decider, actor, permission, now_ms, _target(args, actor, permission))
    return {"role": actor.role, **found.to_map()}


def _actor(
    decider: Decider, args: Mapping[str, object], role: str | None, records: Collection[KeyRecord] | None, now_ms: int
) -> Actor:
    who, session = args.get("key"), bool(args.get("session"))
    if (role is None) == (who is None):
        raise ConfigurationError("bad_argument", "say who with --role ROLE, or with --who KEY --state DIR")
    tenant, project = _text(args, "tenant"), _text(args, "project")
    if role is not None:
        if not decider.is_role(role):
            raise _unknown("role", role, decider.policy.roles)
        given = tenant or DEFAULT_TENANT
        return Subject(role).actor(given, member=True, project=project or DEFAULT_PROJECT, session=session)
    if records is None:
        raise ConfigurationError("bad_argument", "a key is asked about, and none is known", "say whose: --state DIR")
    record = next((one for one in records if who in (one.name, one.id)), None)
    if record is None:
        raise _unknown("key", str(who), [one.name for one in records])
    caller = Caller(min(record.uids, default=0), min(record.gids, default=None))
    return bind(
        record,
        caller,
        decider,
        now_ms,
        persona=_text(args, "persona"),
        tenant=tenant,
        project=project,
        session="any" if session else None,
    )


def _target(args: Mapping[str, object], actor: Actor, permission: str) -> Target | None:
    if not any(name in args for name in ("owner", "class", "labels")):
        return None
    place, labels, owner = place_of(actor, permission), args.get("labels"), _text(args, "owner")
    owners = actor.owners
    if owner is not None and owner not in (actor.key_id, actor.root.name):
        owners = (owner if owner.startswith("ed25519:") else _NOBODY,)
    carried = {str(key): str(value) for key, value in labels.items()} if isinstance(labels, Mapping) else {}
    return Target(place.tenant, place.project, owners, _text(args, "class"), carried)


def _text(args: Mapping[str, object], name: str) -> str | None:
    value = args.get(name)
    return value if isinstance(value, str) else None


def _unknown(what: str, name: str, known: Collection[str]) -> ConfigurationError:
    near = nearest(name, known)
    return ConfigurationError(
        "bad_argument", f"no {what} is called {name!r}", f"did you mean {near!r}?" if near else ""
    )
