"""What a daemon holds: memory, descriptors, threads, processes, cgroups, mounts and disk."""

from __future__ import annotations

import contextlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from immured.host.cgroup import choose_cgroup
from tests.descriptors import descriptors

__all__ = ["Held", "held"]


@dataclass(frozen=True, slots=True)
class Held:
    """By every process of one daemon together. `memory` is PSS in KiB; `disk` bytes of its state. The ledger, which
    only grows, is in neither that nor `descriptors`: of its tree each file is held open once."""

    memory: int
    descriptors: int
    threads: int
    processes: int
    cgroups: int
    mounts: int
    disk: int

    def to_map(self) -> dict[str, int]:
        return asdict(self)


def held(state: Path, pid: int) -> Held:
    """Of the daemon that serves `state` as process `pid`, now."""
    rows = []
    for one in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        # Who ends meanwhile holds nothing: a cell that is collected late, on a busy host.
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            rows.append((_pss(one.pid), _descriptors(one.pid, state / "ledger/tree"), one.num_threads()))
    return Held(
        memory=sum(row[0] for row in rows),
        descriptors=sum(row[1] for row in rows),
        threads=sum(row[2] for row in rows),
        processes=len(rows),
        cgroups=sum(1 for path in choose_cgroup(state).rglob("*") if path.is_dir()),
        mounts=len(Path("/proc/self/mountinfo").read_text().splitlines()),
        disk=sum(_size(path) for path in state.rglob("*") if "ledger" not in path.relative_to(state).parts),
    )


def _descriptors(pid: int, tree: Path) -> int:
    paths = [one.rsplit(" -> ", 1)[1] for one in descriptors(pid)]
    return len(paths) - len({path for path in paths if Path(path).is_relative_to(tree)})


def _pss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def _size(path: Path) -> int:
    return os.lstat(path).st_blocks * 512
