"""From a run's arguments to its compiled plan."""

from __future__ import annotations

from immured.errors import Refused
from immured.identity.policy.warrant import Warrant
from immured.isolation.compile import Compiled, RunSpec, compile_plan
from immured.manifest.schema import Manifest
from immured.service.arguments import RunArguments
from immured.service.context import Service
from immured.service.manifests import INLINE, admit, made
from immured.service.storage import grants

__all__ = ["plan_run"]


def plan_run(
    service: Service, warrant: Warrant, arguments: RunArguments, sandbox: str, manifest: Manifest | None = None
) -> Compiled:
    """The plan of one run. `manifest`: already admitted. Raises Refused as `admit` and `compile_plan` do."""
    actor = warrant.actor
    spec = RunSpec(
        sandbox=sandbox,
        argv=arguments.argv,
        tenant=actor.tenant,
        persona=actor.persona,
        env=arguments.env,
        cwd=arguments.cwd,
        files=arguments.files,
        collect=tuple(path.encode() for path in arguments.collect),
        limits=arguments.limits,
        passed=frozenset(arguments.fds),
        learn=arguments.learn,
    )
    manifest = manifest or admit(service, warrant, arguments.manifest, parameters=arguments.parameters)
    if arguments.learn:
        _check_learner(warrant, manifest)
    granted = grants(service, actor, manifest)
    return compile_plan(manifest, spec, service.launcher.facts, granted, profiles=service.state.config.profiles)


def _check_learner(warrant: Warrant, manifest: Manifest) -> None:
    """Who learns sees what he may read, and makes calls that no manifest names yet: what an inline manifest could say.

    Raises Refused `denied`, and `root_owned` for root, who may read everything.
    """
    warrant.require(INLINE, made(warrant, manifest))
    if warrant.actor.uid == 0:
        raise Refused("root_owned", "a learning run shows what its caller may read, and you are root", "act --as USER")
