"""`plan`: every step that a run would take, and by what each limit would hold. Nothing runs, no path is opened."""

from __future__ import annotations

from typing import Final

from immured.identity.authorise import Permission
from immured.manifest.limits import show_limit
from immured.manifest.schema import LIMITS
from immured.service.arguments import parse_run
from immured.service.commands import CommandSpec
from immured.service.context import Service
from immured.service.planning import plan_run
from immured.service.request import Answer, Request

__all__ = ["COMMANDS"]

_SANDBOX: Final = "s00000000000000000000"
"""Stands where a run's own name would."""


async def plan(service: Service, request: Request) -> Answer:
    """args: as for `run`. result: `steps`, `plan` (its digest), `manifest`, `limits` and `enforcement` by limit."""
    compiled = plan_run(service, request.actor, parse_run(request.command.args), _SANDBOX)
    limits = compiled.manifest.limits
    return Answer(
        {
            "steps": compiled.plan.describe(),
            "plan": compiled.plan.digest,
            "manifest": compiled.manifest.digest,
            "limits": {
                **{name: show_limit(name, getattr(limits, name)) for name in LIMITS},
                "strict": limits.strict,
            },
            "enforcement": compiled.enforcement,
        }
    )


COMMANDS: Final = (CommandSpec("plan", Permission.PLAN, "have runs planned", plan),)
