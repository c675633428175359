"""What processes and the kernel hold in memory. Reading is at the edge; the arithmetic is of texts and maps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Final

import psutil

__all__ = ["KERNEL", "of_processes", "parse_kib", "per_unit", "read_meminfo", "tree"]

#: What /proc/meminfo counts of the kernel's own that grows with sandboxes; PSS shows none of it.
KERNEL: Final = ("SUnreclaim", "KernelStack", "PageTables", "Percpu")


def parse_kib(text: str) -> dict[str, int]:
    """The lines `Name:   123 kB` of /proc/meminfo, smaps_rollup and status, in KiB."""
    return {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}


def read_meminfo() -> dict[str, int]:
    """Of this machine, now."""
    return parse_kib(Path("/proc/meminfo").read_text())


def per_unit(before: Sequence[float], during: Sequence[float], after: Sequence[float], *, units: int) -> float:
    """What each of `units` added, where the machine drifts evenly: against the middle of before and after."""
    return (fmean(during) - (fmean(before) + fmean(after)) / 2) / units


def tree(pid: int) -> list[int]:
    """The process and all its descendants, now."""
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def of_processes(pids: Iterable[int], *, named: str | None = None) -> dict[str, int]:
    """Rss and Pss in KiB, summed; with `named`, of the processes of that name alone. Those that end count nothing."""
    total = {"Rss": 0, "Pss": 0, "processes": 0}
    for pid in pids:
        try:
            if named is not None and Path(f"/proc/{pid}/comm").read_text().strip() != named:
                continue
            rollup = parse_kib(Path(f"/proc/{pid}/smaps_rollup").read_text())
        except OSError:
            continue
        total["Rss"] += rollup.get("Rss", 0)
        total["Pss"] += rollup.get("Pss", 0)
        total["processes"] += 1
    return total
