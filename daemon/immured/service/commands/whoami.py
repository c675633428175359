"""`whoami`: as whom the daemon takes the caller, and what he may."""

from __future__ import annotations

from typing import Final

from immured.errors import Refused
from immured.identity.policy.permissions import PERMISSIONS
from immured.service.commands import CommandSpec
from immured.service.context import Service
from immured.service.request import Answer, Request
from immured.wire.strict import take

__all__ = ["COMMANDS"]


async def whoami(service: Service, request: Request) -> Answer:
    """args: none. result: what entries say of the actor, and `tenant`, `project`, `standing`, `record` (as `key.show`
    has it), `roles` (its role and all that it includes), `permissions` (that some rule allows), `policy` (digest)."""
    take(request.command.args, "args", ())
    actor, authority, now = request.actor, service.authority, service.clock()

    def allowed(permission: str) -> bool:
        try:
            authority.decider.warrant(actor, permission, now)
        except Refused:
            return False
        return True

    return Answer(
        {
            **actor.to_map(),
            "tenant": actor.tenant,
            "project": actor.project,
            "standing": actor.root.standing(now),
            "record": actor.root.to_map(),
            "roles": sorted(authority.decider.roles(actor.role)),
            "permissions": sorted(filter(allowed, PERMISSIONS)),
            "policy": authority.policy.digest,
        }
    )


COMMANDS: Final = (CommandSpec("whoami", "whoami", whoami),)
