"""By what each limit is enforced on this host: the means, the weaker means, or a refusal. Pure.

The texts are a stable vocabulary (docs/manifest.md lists it): results, the ledger and `immure plan` show them.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.isolation.abi import AffinityFlag, Op
from immured.isolation.plan import Step
from immured.manifest.units import show_cores

if TYPE_CHECKING:
    from immured.host.facts import HostFacts
    from immured.manifest.schema import Limits

__all__ = ["WEAKER", "Means", "means_of"]

CGROUP_MEMORY: Final = "cgroup memory.max"
CGROUP_SWAP: Final = "cgroup memory.swap.max"
CGROUP_PIDS: Final = "cgroup pids.max"
CGROUP_CPU: Final = "cgroup cpu.max"
CGROUP_IO: Final = "cgroup io.max"
CPU_WATCH: Final = "cpu.stat watch"
TIMER: Final = "launcher timer"
NOFILE: Final = "rlimit_nofile"
TMPFS: Final = "tmpfs size"
OUTPUT: Final = "daemon"
PROCESS_MEMORY: Final = "rlimit_as+rlimit_data (per process)"
UID_TASKS: Final = "rlimit_nproc (per run uid)"
AFFINITY: Final = "affinity (whole cpus)"
KEPT_AFFINITY: Final = "affinity, kept by the filter"
CPUSET: Final = "cgroup cpuset.cpus"
PROCESS_CPU: Final = "rlimit_cpu (per process)"
FILE_SIZE: Final = "tmpfs size, rlimit_fsize (per file) in bound directories"

WEAKER: Final = frozenset({PROCESS_MEMORY, UID_TASKS, AFFINITY, PROCESS_CPU, FILE_SIZE})
"""The means that hold less than the limit says: named in the result, refused by `strict`."""

_PERIOD_US: Final = 100_000
_CPU_GRACE_S: Final = 2  # RLIMIT_CPU stands behind the watch, which says the cause; it must not come first
_SECOND: Final = 10**9
_RESERVED: Final = 2 << 30
_MEMLOCK: Final = 8 << 20
_ALWAYS: Final = {
    resource.RLIMIT_CORE: 1,  # 0 keeps files from being written, and 1 the host's handler from being started too
    resource.RLIMIT_STACK: 8 << 20,
    resource.RLIMIT_MSGQUEUE: 819_200,
    resource.RLIMIT_SIGPENDING: 1024,
    resource.RLIMIT_NICE: 0,
    resource.RLIMIT_RTPRIO: 0,
}
"""What every run has, whatever its manifest says."""


@dataclass(frozen=True, slots=True)
class Means:
    """What a plan needs for its limits. `enforcement`: limit -> means, for people and the ledger.

    `denied`: system calls that the filter must refuse for a means to hold.
    """

    enforcement: dict[str, str]
    deadlines: Step
    cgroup: tuple[int, ...]
    rlimits: tuple[Step, ...]
    affinity: Step | None
    denied: tuple[str, ...]


def means_of(limits: Limits, facts: HostFacts, *, binds_writable: bool, passed: frozenset[int] = frozenset()) -> Means:
    """The means for `limits` on a host of these `facts`. `passed`: which of 0, 1, 2 the caller brings itself.

    Raises Refused `unsupported_limit` for a limit that this host, or this run, cannot have at all, and
    `weaker_enforcement` where `limits.strict` and a limit would be held by a weaker means; the details list each.
    """
    draft = _Draft()
    _memory(draft, limits, facts)
    _swap(draft, limits, facts)
    _pids(draft, limits, facts)
    _files(draft, limits)
    _cpus(draft, limits, facts)
    _processors(draft, limits, facts)
    _times(draft, limits, facts)
    _disk(draft, limits, binds_writable=binds_writable)
    _output(draft, limits, passed)
    _io(draft, limits, facts)
    if limits.strict:
        _check_strict(draft.enforcement)
    return Means(
        enforcement=draft.enforcement,
        deadlines=Step(Op.DEADLINES, (limits.wall or 0, limits.cpu_time or 0, int("pids" in facts.controllers))),
        cgroup=(draft.memory_max, draft.pids_max, draft.quota_us, draft.period_us, draft.io_bps, draft.swap_max),
        rlimits=tuple(Step(Op.RLIMIT, (name, value, value)) for name, value in sorted(draft.rlimits.items())),
        affinity=draft.affinity,
        denied=draft.denied,
    )


@dataclass(slots=True)
class _Draft:
    """What the limits add up to, one after the other. Cgroup figures of 0 are none."""

    enforcement: dict[str, str] = field(default_factory=dict)
    rlimits: dict[int, int] = field(default_factory=lambda: dict(_ALWAYS))
    memory_max: int = 0
    pids_max: int = 0
    quota_us: int = 0
    period_us: int = 0
    io_bps: int = 0
    swap_max: int = 0
    affinity: Step | None = None
    denied: tuple[str, ...] = ()


def _memory(draft: _Draft, limits: Limits, facts: HostFacts) -> None:
    draft.rlimits[resource.RLIMIT_MEMLOCK] = min(_MEMLOCK, limits.memory)
    if "memory" in facts.controllers:
        draft.memory_max, draft.enforcement["memory"] = limits.memory, CGROUP_MEMORY
    else:
        # DATA counts what is private and may be written. Shared anonymous memory only AS counts, and AS counts what is
        # merely reserved too: without room for that neither Node nor sixteen threads of glibc's start.
        draft.rlimits[resource.RLIMIT_DATA] = limits.memory
        draft.rlimits[resource.RLIMIT_AS] = limits.memory + _RESERVED
        # neither counts what is written to a memfd and never mapped; /dev/shm, the usual second choice, has a size
        draft.denied += ("memfd_create",)
        draft.enforcement["memory"] = PROCESS_MEMORY


def _swap(draft: _Draft, limits: Limits, facts: HostFacts) -> None:
    """What a cgroup has beside its memory. Where nothing holds that none can be asked for, and nothing is promised."""
    if "memory" in facts.controllers and facts.swap:
        draft.swap_max, draft.enforcement["swap"] = limits.swap, CGROUP_SWAP
    elif limits.swap:
        raise _unsupported(
            "swap",
            "cannot be enforced: the daemon's cgroup has no memory.swap.max",
            "leave limits.swap out, or give the daemon's cgroup the memory controller (immure doctor)",
        )


def _pids(draft: _Draft, limits: Limits, facts: HostFacts) -> None:
    if "pids" in facts.controllers:
        # the controller must be the first wall, since it alone tells that it was hit
        draft.rlimits[resource.RLIMIT_NPROC] = 2 * limits.pids + 64
        draft.pids_max, draft.enforcement["pids"] = limits.pids, CGROUP_PIDS
    else:
        draft.rlimits[resource.RLIMIT_NPROC] = limits.pids
        draft.enforcement["pids"] = UID_TASKS


def _files(draft: _Draft, limits: Limits) -> None:
    draft.rlimits[resource.RLIMIT_NOFILE] = limits.files
    draft.enforcement["files"] = NOFILE


def _cpus(draft: _Draft, limits: Limits, facts: HostFacts) -> None:
    if limits.cpus is None:
        return
    if "cpu" in facts.controllers:
        draft.quota_us, draft.period_us = limits.cpus * _PERIOD_US // 1000, _PERIOD_US
        draft.enforcement["cpus"] = CGROUP_CPU
    else:
        draft.enforcement["cpus"] = AFFINITY


def _processors(draft: _Draft, limits: Limits, facts: HostFacts) -> None:
    """Which processors: those of `cores`, as many as `pin` or, where nothing else holds it, `cpus` says."""
    most = facts.cores if limits.cores is None else limits.cores
    if beyond := most & ~facts.cores:
        raise _unsupported(
            "cores", f"names {show_cores(beyond)}; the daemon may use {show_cores(facts.cores)}", "name others"
        )
    whole = min(-(-limits.cpus // 1000), most.bit_count()) if limits.cpus and "cpus" not in _full(draft) else None
    if limits.pin is not None and limits.pin > most.bit_count():
        raise _unsupported(
            "pin", f"is {limits.pin}; a run may use {most.bit_count()}: {show_cores(most)}", "ask for fewer"
        )
    if limits.pin is not None and whole is not None and limits.pin > whole:
        raise _unsupported(
            "pin", f"is {limits.pin}; without the cpu controller limits.cpus allows {whole}", "ask for as many as cpus"
        )
    chosen = {name for name in ("cores", "pin") if getattr(limits, name) is not None}
    if not chosen and whole is None:
        return
    by_cgroup = bool(chosen) and "cpuset" in facts.controllers
    flags = (AffinityFlag.EXCLUSIVE if limits.pin else 0) | (AffinityFlag.CPUSET if by_cgroup else 0)
    count = limits.pin or whole or 0
    listed = b"" if limits.cores is None else show_cores(limits.cores).encode()
    draft.affinity = Step(Op.AFFINITY, (count, int(flags)), (listed,))
    if not by_cgroup:
        draft.denied += ("sched_setaffinity",)
    draft.enforcement |= dict.fromkeys(sorted(chosen), CPUSET if by_cgroup else KEPT_AFFINITY)


def _full(draft: _Draft) -> set[str]:
    """The limits that are held by more than a weaker means."""
    return {name for name, means in draft.enforcement.items() if means not in WEAKER}


def _unsupported(name: str, problem: str, remedy: str) -> Refused:
    return Refused("unsupported_limit", f"limits.{name} {problem}", remedy, details={"field": f"limits.{name}"})


def _times(draft: _Draft, limits: Limits, facts: HostFacts) -> None:
    if limits.cpu_time is not None:
        draft.rlimits[resource.RLIMIT_CPU] = -(-limits.cpu_time // _SECOND) + _CPU_GRACE_S
        draft.enforcement["cpu_time"] = CPU_WATCH if facts.cgroup else PROCESS_CPU
    if limits.wall is not None:
        draft.enforcement["wall"] = TIMER


def _disk(draft: _Draft, limits: Limits, *, binds_writable: bool) -> None:
    if limits.disk is None:
        return
    if binds_writable:
        draft.rlimits[resource.RLIMIT_FSIZE] = limits.disk
    draft.enforcement["disk"] = FILE_SIZE if binds_writable else TMPFS


def _output(draft: _Draft, limits: Limits, passed: frozenset[int]) -> None:
    if limits.output is None:
        return
    if passed & {1, 2}:
        raise Refused(
            "unsupported_limit",
            "limits.output cannot be enforced on a descriptor that the caller passes",
            "leave limits.output out, or let the daemon capture or stream the output",
            details={"field": "limits.output"},
        )
    draft.enforcement["output"] = OUTPUT


def _io(draft: _Draft, limits: Limits, facts: HostFacts) -> None:
    if limits.io is None:
        return
    if "io" not in facts.controllers:
        raise Refused(
            "unsupported_limit",
            "limits.io cannot be enforced: this host's cgroup v2 has no io controller for the daemon",
            "leave limits.io out, or give the daemon's cgroup the io controller (immure doctor)",
            details={"field": "limits.io"},
        )
    draft.io_bps, draft.enforcement["io"] = limits.io, CGROUP_IO


def _check_strict(enforcement: dict[str, str]) -> None:
    weaker = {name: means for name, means in enforcement.items() if means in WEAKER}
    if weaker:
        listed = "; ".join(f"{name} by {means}" for name, means in weaker.items())
        raise Refused(
            "weaker_enforcement",
            f"strict limits, and this host or this manifest holds only by weaker means: {listed}",
            "leave strict out, or mend the host (immure doctor); for disk, write to a tmpfs and collect",
            details={"weaker": weaker},
        )
