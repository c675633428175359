"""From a manifest to the plan of a sandbox that lives, and of an exec in one. Pure, as `compile` is.

A sandbox's plan has what is mounted and the limits that all in it share; an exec's the walls that a process puts on
itself, and the limits that are its own: `wall`, `cpu_time`, `files`, `output` and `pin` are each exec's, the rest the
sandbox's, and an exec may be given less of those too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.isolation import abi
from immured.isolation.abi import Op, PlanKind
from immured.isolation.compile import (
    MAX_COLLECTED_BYTES,
    Compiled,
    check_arguments,
    check_collected,
    check_files,
    check_name,
    check_path,
    payload_steps,
)
from immured.isolation.filesystem import Grants, View, file_steps, view_of
from immured.isolation.means import Means, means_of
from immured.isolation.plan import Part, Plan, Step
from immured.isolation.profiles import SHIPPED, Profiles
from immured.manifest.environment import environment
from immured.manifest.limits import tighten
from immured.manifest.parameters import require_filled
from immured.manifest.use import check_manifest, check_use

if TYPE_CHECKING:
    from immured.host.facts import HostFacts
    from immured.manifest.schema import Limits, Manifest

__all__ = ["ExecSpec", "SandboxSpec", "Terminal", "compile_exec", "compile_sandbox"]

_SHARED: Final = ("memory", "pids", "cpus", "io", "swap")
"""Limits that a cgroup holds, in the order of CGROUP's operands (cpus has two)."""
_OF_EXECS: Final = frozenset({"wall", "cpu_time", "files", "output", "pin"})


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """A sandbox, as ordered. `ttl_ns`: its time to live. `env` and `cwd` are what its execs begin with.

    `limits` is the wire's map, still unread: only tighter than the manifest's.
    """

    sandbox: str
    ttl_ns: int
    tenant: str = "default"
    persona: str | None = None
    env: Mapping[bytes, bytes] = field(default_factory=dict)
    cwd: bytes | None = None
    files: Mapping[bytes, bytes] = field(default_factory=dict)
    limits: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Terminal:
    """A terminal's size, in characters."""

    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class ExecSpec:
    """One exec, as ordered. `sandbox` and `exec` name its cgroup; the rest is as `RunSpec` has it."""

    sandbox: str
    exec: str
    argv: tuple[bytes, ...]
    tenant: str = "default"
    persona: str | None = None
    env: Mapping[bytes, bytes] = field(default_factory=dict)
    cwd: bytes | None = None
    collect: tuple[bytes, ...] = ()
    limits: Mapping[str, object] | None = None
    passed: frozenset[int] = frozenset()
    terminal: Terminal | None = None


def compile_sandbox(
    manifest: Manifest,
    spec: SandboxSpec,
    facts: HostFacts,
    grants: Grants | None = None,
    *,
    profiles: Profiles = SHIPPED,
) -> Compiled:
    """The plan for a sandbox under `manifest`; `Compiled.manifest` is what its execs are compiled from.

    Raises Refused as `compile_plan` does, `unsupported_host` where there is no cgroup v2 at all: whatever an exec's
    processes would leave behind, nobody could find.
    """
    if not facts.cgroup:
        raise Refused(
            "unsupported_host",
            "this daemon has no cgroup v2, and a sandbox that lives needs one",
            "give the daemon a cgroup subtree of its own (`immure doctor`), or use `run`",
        )
    require_filled(manifest)
    check_manifest(manifest, spec.persona, spec.tenant)
    environment(manifest, spec.env)  # whether it may be set
    if spec.cwd is not None:
        check_path("cwd", spec.cwd)
    check_name("sandbox", spec.sandbox)
    check_name("tenant", spec.tenant)
    files = check_files(spec.files)
    tightened = manifest if spec.limits is None else tighten(manifest, spec.limits)
    means = _means(tightened, facts, frozenset())
    _walls(tightened, facts, frozenset(), profiles)  # what no exec could have is refused now, and found again then
    ground = _ground(tightened, grants or Grants())
    plan = Plan(
        [
            Step(Op.DEADLINES, (spec.ttl_ns, 0, 0)),
            Step(Op.CGROUP, means.cgroup, (spec.tenant.encode(), spec.sandbox.encode())),
        ],
        ground.before_files,
        file_steps(ground.view, files),
        ground.after_files,
        kind=PlanKind.SANDBOX,
    )
    shared = {name: how for name, how in means.enforcement.items() if name not in _OF_EXECS}
    return Compiled(plan, shared, tightened, ())


@dataclass(frozen=True, slots=True)
class _Ground:
    """What is mounted in every sandbox of one manifest."""

    view: View
    before_files: Part
    after_files: Part


@lru_cache(maxsize=256)
def _ground(manifest: Manifest, grants: Grants) -> _Ground:
    view = view_of(manifest, grants)
    before = view.steps if view.root is None else (view.root, *view.steps)
    after = [
        Step(Op.SEAL_ROOT),
        *([Step(Op.LOOPBACK)] if manifest.network.mode == "loopback" else []),
        Step(Op.IDENTITY, (abi.PAYLOAD_ID, abi.PAYLOAD_ID)),
    ]
    return _Ground(view, Part(before), Part(after))


def compile_exec(manifest: Manifest, spec: ExecSpec, facts: HostFacts, *, profiles: Profiles = SHIPPED) -> Compiled:
    """The plan for an exec in a sandbox whose effective manifest is `manifest`. Raises Refused as `compile_plan`."""
    argv = check_arguments(spec.argv)
    check_use(manifest, argv, spec.persona, spec.tenant)
    env = environment(manifest, spec.env)
    cwd = manifest.command.cwd if spec.cwd is None else check_path("cwd", spec.cwd)
    collect = check_collected(spec.collect)
    tightened = manifest if spec.limits is None else tighten(manifest, spec.limits)
    walls = _walls(tightened, facts, spec.passed, profiles)
    means = walls.means
    own = _own(means.cgroup, manifest.limits, tightened.limits)
    head = [means.deadlines, Step(Op.CGROUP, own, (spec.sandbox.encode(), spec.exec.encode()))]
    head += [Step(Op.COLLECT, (MAX_COLLECTED_BYTES,), (path,)) for path in collect]
    if spec.terminal is not None:
        head.append(Step(Op.TERMINAL, (spec.terminal.rows, spec.terminal.columns)))
    variables = [name + b"=" + value for name, value in env.items()]
    plan = Plan(
        head,
        walls.steps,
        [Step(Op.EXEC, (len(argv),), (cwd, *argv, *variables))],
        kind=PlanKind.EXEC,
    )
    return Compiled(plan, dict(means.enforcement), tightened, collect)


def _own(cgroup: tuple[int, ...], shared: Limits, own: Limits) -> tuple[int, ...]:
    """An exec's CGROUP operands: what it asked to have less of than its sandbox; 0 for what the sandbox's holds."""
    memory, pids, quota, period, io, swap = cgroup
    less = {name: getattr(own, name) != getattr(shared, name) for name in _SHARED}
    fewer = less["memory"] or less["swap"]  # swap is said beside memory
    return (
        memory if fewer else 0,
        pids if less["pids"] else 0,
        quota if less["cpus"] else 0,
        period if less["cpus"] else 0,
        io if less["io"] else 0,
        swap if fewer else 0,
    )


@dataclass(frozen=True, slots=True)
class _Walls:
    """What execs of one manifest with the same limits have in common."""

    means: Means
    steps: Part


@lru_cache(maxsize=256)
def _walls(manifest: Manifest, facts: HostFacts, passed: frozenset[int], profiles: Profiles) -> _Walls:
    means = _means(manifest, facts, passed)
    return _Walls(means, Part(payload_steps(manifest, means, facts, profiles)))


@lru_cache(maxsize=256)
def _means(manifest: Manifest, facts: HostFacts, passed: frozenset[int]) -> Means:
    return means_of(manifest.limits, facts, binds_writable=bool(manifest.filesystem.write), passed=passed)
