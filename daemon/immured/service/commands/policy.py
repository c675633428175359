"""`policy.*`: the policy that is in force, another in its place, and why it says what it says."""

from __future__ import annotations

import asyncio
from typing import Final

from immured.errors import ConfigurationError, Refused
from immured.identity.actor import Actor, Caller, bind
from immured.identity.keyring import KeyRecord, is_key_id, unknown
from immured.identity.policy.explain import explain
from immured.identity.policy.lockout import check_lockout
from immured.identity.policy.parse import parse_policy
from immured.identity.policy.permissions import PERMISSIONS
from immured.identity.policy.schema import Policy
from immured.identity.policy.warrant import Target, place_of
from immured.ledger import entry_types
from immured.service import policies, targets
from immured.service.commands import CommandSpec
from immured.service.context import Service
from immured.service.deciding import decide, deciding
from immured.service.request import Answer, Request
from immured.wire.strict import Fields, kind_of, nearest, shown, take

__all__ = ["COMMANDS"]


async def set_policy(service: Service, request: Request) -> Answer:
    """args: `policy` (the file, bin or str), `expect` (the digest that is in force: another one refuses). result:
    `digest`, `previous`, `roleless` (names of active keys whose role the new one does not have)."""
    fields = take(request.command.args, "args", ("policy", "expect"))
    policy = _parsed(fields)
    expected = fields.optional("expect", str)
    async with deciding(service, request):
        authority, now = service.authority, service.clock()
        previous = authority.policy.digest
        if expected not in (None, previous):
            raise Refused(
                "conflict", f"the policy in force is {previous}", "look at it first", details={"digest": previous}
            )
        if policy.digest == previous:
            raise Refused("wrong_state", "that policy is in force already", "nothing is to be done")
        check_lockout(policy, authority.keyring, now)
        try:
            await asyncio.to_thread(policies.save_policy, service.state.paths, policy)
        except OSError as error:
            raise Refused(
                "storage_failed", f"the policy could not be kept: {error.strerror}", "see the state directory's disk"
            ) from error
        entered = {"digest": policy.digest, "previous": previous, "bytes": len(policy.text)}
        receipt = await decide(service, request, entry_types.POLICY_CHANGED, entered)
        authority.set_policy(policy)
    roleless = [
        record.name
        for record in authority.keyring
        if record.role not in policy.roles and record.standing(now) == "active"
    ]
    return Answer({"digest": policy.digest, "previous": previous, "roleless": roleless[:1000]}, receipt)


async def show(service: Service, request: Request) -> Answer:
    """args: none. result: `digest`, `policy` (bin: the file)."""
    take(request.command.args, "args", ())
    policy = service.authority.policy
    return Answer({"digest": policy.digest, "policy": policy.text})


async def explain_one(service: Service, request: Request) -> Answer:
    """args: `cmd` (a permission); of whom: `key` (name or id; default one's own), `persona`, `tenant`, `project`,
    `session` (bool); done to what: `owner` (a key; default its own), `class`, `labels`. result: `allowed`, `why`,
    `rule`, `rules`, `controls`, `key`, `role`."""
    known = ("cmd", "key", "persona", "tenant", "project", "session", "owner", "class", "labels")
    fields = take(request.command.args, "args", known)
    permission = fields.required("cmd", str)
    if permission not in PERMISSIONS:
        near = nearest(permission, PERMISSIONS)
        raise fields.wrong("cmd", f"is {shown(permission)}, no permission", f"did you mean {near!r}?" if near else "")
    authority, now = service.authority, service.clock()
    record = _record(service, request, fields)
    said: dict[str, object] = {"permission": permission, "key": record.id}
    try:
        actor = bind(
            record,
            Caller(min(record.uids, default=0), min(record.gids, default=None)),
            authority.decider,
            now,
            persona=fields.optional("persona", str),
            tenant=fields.optional("tenant", str),
            project=fields.optional("project", str),
            session="any" if fields.optional("session", bool) else None,
        )
    except Refused as refusal:
        # A key that does not serve, or may not carry those names: no rule comes to it.
        return Answer({**said, "allowed": False, "why": refusal.message, "rules": [], "controls": []})
    found = explain(authority.decider, actor, permission, now, _target(service, request, fields, actor, permission))
    return Answer({**said, "role": actor.role, **found.to_map()})


def _parsed(fields: Fields) -> Policy:
    given = fields.values.get("policy")
    if not isinstance(given, bytes | str):
        raise fields.wrong("policy", "is missing" if given is None else f"is {kind_of(given)}, not bin or str")
    try:
        return parse_policy(given if isinstance(given, bytes) else given.encode())
    except ConfigurationError as error:
        raise Refused("policy_invalid", error.message, error.remedy, details=error.details) from error


def _record(service: Service, request: Request, fields: Fields, name: str = "key") -> KeyRecord:
    """The key in question, of which one may ask. Raises Refused `not_found`, `denied`."""
    given = fields.optional(name, str)
    authority = service.authority
    record: KeyRecord | None = request.actor.root
    if given is not None:
        record = authority.find(given) if is_key_id(given) else authority.keyring.named(given)
    if record is None:
        raise unknown(given or "")
    where = targets.of_key(authority, request.actor, record)
    targets.seen(request.warrant, where, "key.show", unknown(record.id if given is None else given))
    return record


def _target(service: Service, request: Request, fields: Fields, actor: Actor, permission: str) -> Target | None:
    """What is acted on, as far as it was said; None: nothing was."""
    kind, labels = fields.optional("class", str), fields.optional("labels", dict)
    if "owner" not in fields and kind is None and labels is None:
        return None
    owners = (_record(service, request, fields, "owner").id,) if "owner" in fields else actor.owners
    for value in (labels or {}).values():
        if not isinstance(value, str):
            raise fields.wrong("labels", f"holds {kind_of(value)}")
    there = place_of(actor, permission)
    pairs = {str(name): str(value) for name, value in (labels or {}).items()}
    return Target(there.tenant, there.project, owners, kind, pairs)


COMMANDS: Final = (
    CommandSpec("policy.set", "policy.set", set_policy),
    CommandSpec("policy.show", "policy.show", show),
    CommandSpec("policy.explain", "policy.explain", explain_one),
)
