"""`grant.*`: one command, by one key, once, that the policy does not allow it."""

from __future__ import annotations

import secrets
from typing import Final

from immured.errors import Refused
from immured.identity.actor import DEFAULT
from immured.identity.grants import MAX_TTL_MS, Grant
from immured.identity.keyring import KeyRecord, check_label, check_note, is_key_id, unknown
from immured.identity.policy.permissions import PERMISSIONS, RIGHTS
from immured.identity.policy.rights import excess_of_grant
from immured.ledger import entry_types
from immured.service import targets
from immured.service.commands import CommandSpec
from immured.service.context import Service
from immured.service.deciding import decide, deciding
from immured.service.request import Answer, Request
from immured.wire.strict import Fields, nearest, shown, take

__all__ = ["COMMANDS", "command_in"]


async def issue(service: Service, request: Request) -> Answer:
    """args: `key` (name or id), `cmd`, `ttl_ms` (at most a day), `reason`; `tenant` (default: the command's),
    `project` (default: any), `digest` (32 bytes: only this very command). result: the grant."""
    fields = take(request.command.args, "args", ("key", "cmd", "tenant", "project", "digest", "ttl_ms", "reason"))
    ttl = fields.integer("ttl_ms", 1, MAX_TTL_MS)
    if ttl is None:
        raise fields.wrong("ttl_ms", "is missing")
    cmd, reason = command_in(fields), check_note(fields.required("reason", str), "args.reason")
    tenant, project = fields.optional("tenant", str), fields.optional("project", str)
    digest = fields.sized("digest", bytes, 32, 32)
    actor = request.actor
    async with deciding(service, request):
        authority, now = service.authority, service.clock()
        grant = Grant(
            id=f"grant-{secrets.token_hex(8)}",
            key=_grantee(service, request, fields).id,
            cmd=cmd,
            tenant=actor.tenant if tenant is None else check_label(tenant, "args.tenant"),
            project=None if project is None else check_label(project, "args.project"),
            digest=digest,
            expires_ms=now + ttl,
            issuers=actor.owners,
            reason=reason,
        )
        found = excess_of_grant(authority.decider, actor, cmd, grant.tenant, grant.project, grant.expires_ms, now)
        if found is not None:
            raise found.refused()
        for target in targets.of_grant(actor, grant):
            request.warrant.check(target)
        declared = authority.policy.tenants.get(grant.tenant)
        if declared is None or (grant.project or DEFAULT) not in declared.projects:
            raise fields.wrong("tenant", "and `project` are none that the policy has")
        authority.grants.check_room(now)
        receipt = await decide(service, request, entry_types.GRANT_ISSUED, {"record": grant.to_map()})
    return Answer(grant.to_map(), receipt)


async def list_grants(service: Service, request: Request) -> Answer:
    """args: none. result: `grants`, those that can still be used and that one may see, oldest first."""
    take(request.command.args, "args", ())
    warrant, now = request.warrant, service.clock()
    warrant.covers(warrant.place())
    service.authority.grants.forget(now)
    found = [
        grant.to_map()
        for grant in service.authority.grants
        if targets.covers_all(warrant, targets.of_grant(request.actor, grant))
    ]
    return Answer({"grants": found})


async def revoke(service: Service, request: Request) -> Answer:
    """args: `grant`. result: the grant that was."""
    fields = take(request.command.args, "args", ("grant",))
    grant_id = fields.required("grant", str)
    hidden = Refused("not_found", f"no grant {shown(grant_id)} can be used", "`immure grant list` shows them")
    async with deciding(service, request):
        service.authority.grants.forget(service.clock())
        grant = service.authority.grants.get(grant_id)
        if grant is None:
            raise hidden
        targets.seen(request.warrant, targets.of_grant(request.actor, grant), "grant.list", hidden)
        receipt = await decide(service, request, entry_types.GRANT_REVOKED, {"revoked": grant.id})
    return Answer(grant.to_map(), receipt)


def command_in(fields: Fields) -> str:
    """`cmd`: the name of a command. Raises Refused `bad_argument`."""
    cmd = fields.required("cmd", str)
    known = PERMISSIONS.keys() - RIGHTS.keys()
    if cmd not in known:
        near = nearest(cmd, known)
        raise fields.wrong(
            "cmd", f"is {shown(cmd)}, which no command is called", f"did you mean {near!r}?" * bool(near)
        )
    return cmd


def _grantee(service: Service, request: Request, fields: Fields) -> KeyRecord:
    """Whom it is for: a key that one may see. Raises Refused `not_found`."""
    given = fields.required("key", str)
    authority = service.authority
    record = authority.find(given) if is_key_id(given) else authority.keyring.named(given)
    if record is None or not all(
        request.warrant.holds("key.show", target) for target in targets.of_key(authority, request.actor, record)
    ):
        raise unknown(given)
    return record


COMMANDS: Final = (
    CommandSpec("grant.issue", "grant.issue", issue),
    CommandSpec("grant.list", "grant.list", list_grants),
    CommandSpec("grant.revoke", "grant.revoke", revoke),
)
