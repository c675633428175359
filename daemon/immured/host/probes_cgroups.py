"""cgroup v2: whether it is there, which controllers it really holds, and what takes the place of those it does not."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from immured.host import syscalls
from immured.host.cgroup import parse_mount
from immured.host.check import Check, Status, errno_name, is_root, untried

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Mounts", "mounts", "probe"]

WEAKER = {
    "cpu": "no quota: a run is held to whole processors by its affinity",
    "memory": "RLIMIT_AS bounds each process, not the tree; an exhausted run sees failed allocations, not an oom kill",
    "pids": "RLIMIT_NPROC bounds the run's own uid; a fork bomb is refused, and not reported as `pids`",
    "io": "no bandwidth limit",
}
"""What is left of each limit where its controller is missing. `strict = true` in a manifest refuses instead."""

UNIFY = (
    "boot with the unified hierarchy (`systemd.unified_cgroup_hierarchy=1`, or `cgroup_no_v1=all`): "
    "until then the limit is enforced by the weaker means, and each result says so"
)


@dataclass(frozen=True)
class Mounts:
    """Where cgroup v2 is mounted (None: nowhere), and which controllers v1 hierarchies hold."""

    unified: Path | None
    held_by_v1: frozenset[str]

    @property
    def hybrid(self) -> bool:
        return self.unified is not None and bool(self.held_by_v1)


def mounts(mountinfo: str) -> Mounts:
    """Read `/proc/self/mountinfo`. A controller is v1's when a v1 hierarchy names it in its super options."""
    held: set[str] = set()
    for line in mountinfo.splitlines():
        kind = line.partition(" - ")[2].split()
        if len(kind) >= 3 and kind[0] == "cgroup":
            held.update("io" if option == "blkio" else option for option in kind[2].split(","))
    return Mounts(parse_mount(mountinfo), frozenset(held & WEAKER.keys()))


def probe(proc: Path = Path("/proc")) -> Iterator[Check]:
    """Every finding about cgroups. Makes one cgroup of our own at the hierarchy's root, and removes it."""
    found = mounts((proc / "self/mountinfo").read_text())
    if found.unified is None:
        yield Check(
            "cgroup.v2", Status.FAIL, "cgroup v2 is not mounted: no run could be measured or killed as a whole",
            "mount -t cgroup2 none /sys/fs/cgroup, or boot a system that does",
        )  # fmt: skip
        return
    kind = "hybrid: v1 hierarchies stand beside it" if found.hybrid else "unified"
    yield Check("cgroup.v2", Status.OK, f"mounted at {found.unified}, {kind}", facts={
        "path": str(found.unified), "hybrid": found.hybrid, "held_by_v1": sorted(found.held_by_v1),
    })  # fmt: skip
    have = frozenset((found.unified / "cgroup.controllers").read_text().split())
    for name in WEAKER:
        yield controller(name, have, found)
    if is_root():
        yield from birth(found.unified)
    else:
        yield from map(untried, ("cgroup.kill", "cgroup.birth"))


def controller(name: str, have: frozenset[str], found: Mounts) -> Check:
    """Whether one controller can be used by cgroup v2."""
    if name in have:
        return Check(f"cgroup.{name}", Status.OK, "available", facts={"available": True})
    where = "held by a v1 hierarchy" if name in found.held_by_v1 else "not in this hierarchy"
    return Check(f"cgroup.{name}", Status.WARN, f"{where}; instead: {WEAKER[name]}", UNIFY, {"available": False})


def birth(unified: Path) -> Iterator[Check]:
    """Try what every run needs: a cgroup of our own, cgroup.kill in it, and a child born inside it."""
    ours = unified / f"immured-doctor-{os.getpid()}"
    try:
        ours.mkdir()
    except OSError as failed:
        yield Check(
            "cgroup.subtree", Status.FAIL, f"no cgroup can be made under {unified}: {errno_name(failed.errno or 0)}",
            "run as root on the host; in a container, delegate it a writable cgroup v2 subtree",
        )  # fmt: skip
        return
    try:
        yield kill_file(ours)
        yield into(ours)
    finally:
        ours.rmdir()


def kill_file(cgroup: Path) -> Check:
    """cgroup.kill ends a whole tree at once (Linux 5.14)."""
    if (cgroup / "cgroup.kill").exists():
        return Check("cgroup.kill", Status.OK, "a run's whole tree can be killed at once")
    return Check("cgroup.kill", Status.FAIL, "no cgroup.kill", "boot Linux 6.1 or newer")


def into(cgroup: Path) -> Check:
    """A child that is born in its cgroup is never, not for a moment, outside its limits (Linux 5.7)."""
    handle = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        child = syscalls.clone_into_cgroup(handle)
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
    except OSError as failed:
        return Check(
            "cgroup.birth", Status.FAIL, f"clone3(CLONE_INTO_CGROUP): {errno_name(failed.errno or 0)}",
            "boot Linux 6.1 or newer; in a container, let its system-call filter pass clone3",
        )  # fmt: skip
    finally:
        os.close(handle)
    return Check("cgroup.birth", Status.OK, "processes can be born inside their limits")
