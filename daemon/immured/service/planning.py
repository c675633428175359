"""From a run's arguments to its compiled plan: which manifest, and may this key use one of its own."""

from __future__ import annotations

from immured.errors import Refused
from immured.identity.authorise import Actor, Permission, require
from immured.isolation.compile import Compiled, RunSpec, compile_plan
from immured.manifest.builtin import parse_map
from immured.manifest.schema import Manifest
from immured.service.arguments import RunArguments
from immured.service.context import Service
from immured.wire.strict import shown

__all__ = ["plan_run"]


def plan_run(service: Service, actor: Actor, arguments: RunArguments, sandbox: str) -> Compiled:
    """The plan of one run. Raises Refused `unknown_manifest`, `manifest_invalid`, and as `compile_plan` does."""
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
    if arguments.learn:
        _check_learner(actor)
    manifest = _choose(service, actor, arguments.manifest)
    return compile_plan(manifest, spec, service.launcher.facts, service.grants, profiles=service.state.config.profiles)


def _check_learner(actor: Actor) -> None:
    """Who learns sees what he may read, and makes calls that no manifest names yet: what an inline manifest could say.

    Raises Refused `denied`, and `root_owned` for root, who may read everything.
    """
    require(actor, Permission.RUN_INLINE, "learn")
    if actor.uid == 0:
        raise Refused("root_owned", "a learning run shows what its caller may read, and you are root", "act --as USER")


def _choose(service: Service, actor: Actor, named: object) -> Manifest:
    if named is None:
        return service.state.default
    if not isinstance(named, str):
        require(actor, Permission.RUN_INLINE, "send manifests of its own")
        return parse_map(named)
    loaded = service.state.manifests.get(named)
    if loaded is None:
        raise Refused(
            "unknown_manifest",
            f"no manifest {shown(named, 80)} is loaded",
            "`status` lists the loaded ones; or send it inline, as a map",
        )
    return loaded
