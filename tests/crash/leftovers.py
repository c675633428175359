"""Count what a dead run could leave on the host."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Leftovers", "leftovers"]

BLOCK = range(0x70000000, 0x7FFFFFFF)


@dataclass(frozen=True, slots=True)
class Leftovers:
    """Processes under the block of host ids or named like ours, namespaces held by processes, mounts, and cgroups."""

    processes: frozenset[str]
    namespaces: frozenset[str]
    mounts: frozenset[str]
    cgroups: frozenset[str]

    def beyond(self, before: Leftovers) -> dict[str, list[str]]:
        """What is here now and was not then; empty when nothing was left."""
        return {
            name: sorted(getattr(self, name) - getattr(before, name))
            for name in ("processes", "namespaces", "mounts", "cgroups")
            if getattr(self, name) - getattr(before, name)
        }


def leftovers(cgroup: Path | None = None) -> Leftovers:
    """`cgroup` is the daemon's own subtree: everything below it counts."""
    processes, namespaces = set(), set()
    for pid in os.listdir("/proc"):
        if not pid.isdigit():
            continue
        try:
            uid = os.stat(f"/proc/{pid}").st_uid
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                continue  # dead; only its parent has not looked yet
            links = {os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("mnt", "net", "pid", "user", "ipc", "uts")}
        except OSError:
            continue  # it ended while we looked
        if uid in BLOCK or name.startswith("immured"):
            processes.add(f"{pid} {name} uid {uid}")
        namespaces |= links
    mounts = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    cgroups = (
        {str(path) for path in cgroup.rglob("*") if path.is_dir()} if cgroup is not None and cgroup.exists() else set()
    )
    return Leftovers(frozenset(processes), frozenset(namespaces), frozenset(mounts), frozenset(cgroups))
