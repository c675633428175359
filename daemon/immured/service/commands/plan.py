"""`plan`: every step that a run would take, and by what each limit would hold. Nothing runs, no path is opened."""

from __future__ import annotations

from typing import Final

from immured.manifest.limits import show_limit
from immured.manifest.schema import LIMITS
from immured.service.arguments import parse_run
from immured.service.commands import CommandSpec
from immured.service.context import Service
from immured.service.manifests import admit
from immured.service.planning import plan_run
from immured.service.request import Answer, Request

__all__ = ["COMMANDS"]

_SANDBOX: Final = "s00000000000000000000"
"""Stands where a run's own name would."""


async def plan(service: Service, request: Request) -> Answer:
    """args: as for `run`. result: `steps`, `plan` (its digest), `manifest`, `parameters`, `limits` and `enforcement` by
    limit."""
    arguments, warrant = parse_run(request.command.args), request.warrant
    manifest = admit(service, warrant, arguments.manifest, parameters=arguments.parameters, consent=False)
    compiled = plan_run(service, warrant, arguments, _SANDBOX, manifest)
    limits = compiled.manifest.limits
    return Answer(
        {
            "steps": compiled.plan.describe(),
            "plan": compiled.plan.digest,
            "manifest": compiled.manifest.digest,
            **({"parameters": dict(compiled.manifest.given)} if compiled.manifest.given else {}),
            "limits": {
                **{name: show_limit(name, getattr(limits, name)) for name in LIMITS},
                "strict": limits.strict,
            },
            "enforcement": compiled.enforcement,
        }
    )


COMMANDS: Final = (CommandSpec("plan", "plan", plan),)
