"""What this host can enforce: the launcher's READY message, and a few probes that need no right."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from immured.manifest.units import show_cores

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HostFacts", "available_cores", "available_cpus"]


def available_cpus() -> int:
    """How many CPUs this process (and so a sandbox) may use."""
    return len(os.sched_getaffinity(0))


def available_cores() -> int:
    """Which CPUs this process may use, as a mask: bit N for processor N."""
    return sum(1 << number for number in os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Facts that a plan depends on. Pure data: two equal values give equal plans.

    `controllers` holds the cgroup v2 controllers of our own subtree ("cpu", "memory", "pids", "io") and "kill" where
    cgroup.kill exists; `landlock_abi` is 0 where there is none; `slot_base` and `slot_count` are the block of host ids
    (65536 to a slot); `cgroup` is the subtree's path, for people; `cores` is a mask of the processors
    that sandboxes may use.
    """

    controllers: frozenset[str] = frozenset()
    landlock_abi: int = 0
    slot_base: int = 0
    slot_count: int = 0
    swap: bool = False
    cgroup: str = ""
    cpus: int = field(default_factory=available_cpus)
    cores: int = field(default_factory=available_cores)

    def to_map(self) -> Mapping[str, object]:
        """The facts as a map of plain values, for `status` and for the ledger."""
        return {
            "controllers": sorted(self.controllers),
            "landlock_abi": self.landlock_abi,
            "slot_base": self.slot_base,
            "slot_count": self.slot_count,
            "swap_limit": self.swap,
            "cgroup": self.cgroup,
            "cpus": self.cpus,
            "cores": show_cores(self.cores),
        }
