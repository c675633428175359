"""From a manifest and a run to a plan. Pure: equal inputs give equal plans, byte for byte."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.isolation import abi
from immured.isolation.abi import Op
from immured.isolation.filesystem import Grants, View, file_steps, view_of
from immured.isolation.landlock import landlock_steps
from immured.isolation.means import Means, means_of
from immured.isolation.plan import Part, Plan, Step
from immured.isolation.profiles import SHIPPED, Profiles
from immured.isolation.seccomp import compile_profile, learnable
from immured.manifest.environment import environment
from immured.manifest.items import show
from immured.manifest.limits import tighten
from immured.manifest.parameters import require_filled
from immured.manifest.paths import path_of
from immured.manifest.use import check_use

if TYPE_CHECKING:
    from immured.host.facts import HostFacts
    from immured.manifest.schema import Manifest

__all__ = [
    "MAX_ARGUMENTS",
    "MAX_COLLECTED_BYTES",
    "MAX_FILES",
    "Compiled",
    "RunSpec",
    "check_arguments",
    "check_collected",
    "check_files",
    "check_name",
    "check_path",
    "compile_plan",
    "payload_steps",
]

MAX_ARGUMENTS: Final = 4096
MAX_FILES: Final = 128
MAX_COLLECTED_BYTES: Final = 16 << 20
"""What one collected file may hold; a larger one is reported as missing."""

_MAX_ARGUMENT: Final = 128 * 1024 - 1  # the kernel's bound on one string, MAX_ARG_STRLEN, less its NUL
_MAX_COMMAND: Final = 1 << 20
_UMASK: Final = 0o022
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}", re.ASCII)
_REMEDY: Final = "see docs/protocol.md, run"


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One run, as ordered. `sandbox` and `tenant` name its cgroup; `passed` says which of 0, 1, 2 the caller brings.

    `limits` is the wire's map, still unread: only tighter than the manifest's. `learn`: docs/learning.md.
    """

    sandbox: str
    argv: tuple[bytes, ...]
    tenant: str = "default"
    persona: str | None = None
    env: Mapping[bytes, bytes] = field(default_factory=dict)
    cwd: bytes | None = None
    files: Mapping[bytes, bytes] = field(default_factory=dict)
    collect: tuple[bytes, ...] = ()
    limits: Mapping[str, object] | None = None
    passed: frozenset[int] = frozenset()
    learn: bool = False


@dataclass(frozen=True, slots=True)
class Compiled:
    """A plan, and what is to be known beside it. `enforcement`: limit -> means. `manifest`: with the run's own limits.

    `collect[i]` is the path of the outcome's i-th file.
    """

    plan: Plan
    enforcement: dict[str, str]
    manifest: Manifest
    collect: tuple[bytes, ...]


def compile_plan(
    manifest: Manifest,
    run: RunSpec,
    facts: HostFacts,
    grants: Grants | None = None,
    *,
    profiles: Profiles = SHIPPED,
) -> Compiled:
    """The plan for `run` under `manifest` on a host of these `facts`.

    Raises Refused: `bad_argument` (a field of the run, named), `denied` (not by this manifest), `unsupported_limit`,
    `weaker_enforcement`, and what the filter's compiler refuses.
    """
    argv = check_arguments(run.argv)
    require_filled(manifest)
    check_use(manifest, argv, run.persona, run.tenant)
    if manifest.filesystem.capture:
        raise Refused(
            "bad_argument",
            f"{show(manifest.filesystem.capture[0].target)} is captured, and what is captured ends with a run",
            "create a sandbox (`sandbox.create`), whose changes can be accepted; or write to it (`write`, --rw)",
            details={"field": "manifest.filesystem.capture"},
        )
    env = environment(manifest, run.env)
    cwd = manifest.command.cwd if run.cwd is None else check_path("cwd", run.cwd)
    collect = check_collected(run.collect)
    files = check_files(run.files)
    check_name("sandbox", run.sandbox)
    check_name("tenant", run.tenant)
    tightened = manifest if run.limits is None else tighten(manifest, run.limits)
    frame = _frame(tightened, facts, grants or Grants(), run.passed, profiles, run.learn)
    means = frame.means

    head = [means.deadlines, Step(Op.CGROUP, means.cgroup, (run.tenant.encode(), run.sandbox.encode()))]
    head += [Step(Op.COLLECT, (MAX_COLLECTED_BYTES,), (path,)) for path in collect]
    variables = [name + b"=" + value for name, value in env.items()]
    plan = Plan(
        head,
        frame.before_files,
        file_steps(frame.view, files),
        frame.after_files,
        [Step(Op.EXEC, (len(argv),), (cwd, *argv, *variables))],
    )
    return Compiled(plan, dict(means.enforcement), tightened, collect)


@dataclass(frozen=True, slots=True)
class _Frame:
    """What runs of one manifest with the same limits have in common."""

    means: Means
    view: View
    before_files: Part
    after_files: Part


@lru_cache(maxsize=256)
def _frame(
    manifest: Manifest, facts: HostFacts, grants: Grants, passed: frozenset[int], profiles: Profiles, learn: bool
) -> _Frame:
    means = means_of(manifest.limits, facts, binds_writable=bool(manifest.filesystem.write), passed=passed)
    view = view_of(manifest, grants, learn=learn)
    after = [Step(Op.SEAL_ROOT)]
    if manifest.network.mode == "loopback":
        after.append(Step(Op.LOOPBACK))
    after += payload_steps(manifest, means, facts, profiles, learn=learn)
    before = view.steps if view.root is None else (view.root, *view.steps)
    return _Frame(means, view, Part(before), Part(after))


def payload_steps(
    manifest: Manifest, means: Means, facts: HostFacts, profiles: Profiles, *, learn: bool = False
) -> list[Step]:
    """RLIMIT to EXPLAIN: the walls that a payload's own process puts on."""
    syscalls = manifest.syscalls
    denied = (*syscalls.deny, *means.denied)
    allowed = tuple(learnable()) if learn else syscalls.allow
    program = compile_profile(syscalls.profile, allowed, denied, profiles=profiles)
    explained = compile_profile(
        syscalls.profile, allowed, denied, explain="learn" if learn else True, profiles=profiles
    )
    # A learning run is not halted: what it writes outside of everything is to be named with the rest.
    halt = manifest.filesystem.on_violation == "halt" and not learn
    flags = (abi.EXPLAIN_HALT if halt else 0) | (abi.EXPLAIN_LEARN if learn else 0)
    return [
        *means.rlimits,
        *(() if means.affinity is None else (means.affinity,)),
        Step(Op.UMASK, (_UMASK,)),
        Step(Op.IDENTITY, (abi.PAYLOAD_ID, abi.PAYLOAD_ID)),
        Step(Op.DROP_CAPABILITIES),
        Step(Op.NO_NEW_PRIVS),
        *landlock_steps(facts.landlock_abi, network=manifest.network.mode == "loopback"),
        *((Step(Op.PIN),) if manifest.command.pin else ()),
        Step(Op.SECCOMP, (), (program,)),
        Step(Op.EXPLAIN, (flags,), (explained,)),
    ]


def check_name(what: str, name: str) -> None:
    """Whether a cgroup can be called so. Raises Refused `bad_argument`."""
    if not _NAME.fullmatch(name):
        raise _bad(what, f"{what} {show(name.encode())} is not a name: a-z, 0-9, `_`, `.` and `-`, at most 64")


def check_arguments(argv: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The command, as a process can have it. Raises Refused `bad_argument`."""
    if not argv:
        raise _bad("argv", "argv is empty: name a command")
    if not argv[0]:
        raise _bad("argv", "argv[0] is empty: name a command")
    if len(argv) > MAX_ARGUMENTS:
        raise _bad("argv", f"argv has {len(argv)} arguments; at most {MAX_ARGUMENTS}")
    for index, argument in enumerate(argv):
        if b"\0" in argument:
            raise _bad("argv", f"argv[{index}] holds a NUL")
        if len(argument) > _MAX_ARGUMENT:
            raise _bad("argv", f"argv[{index}] has {len(argument)} bytes; at most {_MAX_ARGUMENT}")
    if len(argv[0]) > 4095:
        raise _bad("argv", f"argv[0] has {len(argv[0])} bytes; a path has at most 4095")
    if sum(map(len, argv)) > _MAX_COMMAND:
        raise _bad("argv", f"argv has more than {_MAX_COMMAND} bytes")
    return argv


def check_collected(paths: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Paths to bring back. Raises Refused `bad_argument`."""
    if len(paths) > abi.MAX_COLLECT:
        raise _bad("collect", f"collect has {len(paths)} paths; at most {abi.MAX_COLLECT}")
    found = tuple(check_path("collect", path) for path in paths)
    if len(set(found)) != len(found):
        raise _bad("collect", "collect names a path twice")
    return found


def check_files(files: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Files to put in, by path. Raises Refused `bad_argument`."""
    if len(files) > MAX_FILES:
        raise _bad("files", f"files has {len(files)} entries; at most {MAX_FILES}")
    found = {check_path("files", path): data for path, data in files.items()}
    if len(found) != len(files):
        raise _bad("files", "files names a path twice")
    return found


def check_path(what: str, value: bytes) -> bytes:
    """An absolute path. Raises Refused `bad_argument`, naming the field `what`."""
    try:
        return path_of(value)
    except ValueError as error:
        remedy = _REMEDY if value.startswith(b"/") else "write it from / on, as it is called inside: /work/src, not src"
        raise _bad(what, f"{what} holds {show(value)}, which {error}", remedy) from None


def _bad(what: str, message: str, remedy: str = _REMEDY) -> Refused:
    return Refused("bad_argument", message, remedy, details={"field": what})
