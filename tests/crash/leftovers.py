"""Count what a dead run could leave on the host."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from immured.host.cgroup import choose_cgroup

__all__ = ["Leftovers", "leftovers"]


@dataclass(frozen=True, slots=True)
class Leftovers:
    """Of one state directory's daemon: its processes and its runs' (a namespace lives as long as one of them, or a
    mount of it, does), the host's mounts, and its cgroups."""

    processes: frozenset[str]
    mounts: frozenset[str]
    cgroups: frozenset[str]

    def beyond(self, before: Leftovers) -> dict[str, list[str]]:
        """What is here now and was not then; empty when nothing was left."""
        more = {name: getattr(self, name) - getattr(before, name) for name in ("processes", "mounts", "cgroups")}
        return {name: sorted(found) for name, found in more.items() if found}


def leftovers(state: Path) -> Leftovers:
    """Launcher, parker, wardens and PID 1s carry the socket's path in their command line, as they never exec; a
    payload is in the daemon's cgroup."""
    cgroup = choose_cgroup(state)
    processes = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            groups = Path(f"/proc/{pid}/cgroup").read_text()
            name = Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:
            continue  # it ended while we looked
        if os.fsencode(state) in command or f"/{cgroup.name}" in groups:
            processes.add(f"{pid} {name}")
    mounts = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    cgroups = {place for place, _, _ in os.walk(cgroup)} - {str(cgroup)}  # which come and go: `rglob` would fail
    return Leftovers(frozenset(processes), frozenset(mounts), frozenset(cgroups))
