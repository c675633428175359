"""Processes, memory, and the parts of immured itself: what a host may run out of or lack."""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

from immured.host.check import Check, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["probe"]

PIDS_WANTED = 1 << 16
THREADS_WANTED = 1 << 16
RUN_PAGES = 64
RUNS_WANTED = 256  # max_runs of config.toml, as it comes
LAUNCHER = "immured-launcher"


def probe(proc: Path = Path("/proc")) -> Iterator[Check]:
    """Every finding about limits and our own parts."""
    yield processes(proc)
    yield threads(proc)
    yield pipes(proc)
    yield swap(proc)
    yield launcher()
    yield from native()


def processes(proc: Path) -> Check:
    """kernel.pid_max bounds every process of the host, those inside runs included."""
    most = _number(proc / "sys/kernel/pid_max")
    facts = {"pid_max": most}
    if most >= PIDS_WANTED:
        return Check("host.pids", Status.OK, f"kernel.pid_max = {most}", facts=facts)
    return Check(
        "host.pids", Status.WARN, f"kernel.pid_max = {most}: a few greedy runs can use them all",
        "sysctl kernel.pid_max=4194304", facts,
    )  # fmt: skip


def threads(proc: Path) -> Check:
    """kernel.threads-max bounds the host's tasks."""
    most = _number(proc / "sys/kernel/threads-max")
    facts = {"threads_max": most}
    if most >= THREADS_WANTED:
        return Check("host.threads", Status.OK, f"kernel.threads-max = {most}", facts=facts)
    return Check("host.threads", Status.WARN, f"kernel.threads-max = {most}", "sysctl kernel.threads-max=192000", facts)


def pipes(proc: Path) -> Check:
    """What pipes of one user may hold, for who is not root: the broker makes up to four of 16 pages for a run."""
    soft = _number(proc / "sys/fs/pipe-user-pages-soft")
    hard = _number(proc / "sys/fs/pipe-user-pages-hard")
    runs = min(limit // RUN_PAGES for limit in (soft, hard) if limit) if soft or hard else None
    facts = {"soft": soft, "hard": hard, "runs": runs}
    if runs is None or runs >= RUNS_WANTED:
        said = "any number of" if runs is None else str(runs)
        return Check("host.pipes", Status.OK, f"{said} runs at once have whole pipes", facts=facts)
    then = "are refused" if hard and hard // RUN_PAGES == runs else "have pipes of 8 KiB, and write more slowly"
    return Check(
        "host.pipes", Status.WARN, f"beyond {runs} runs at once, more {then}",
        "sysctl fs.pipe-user-pages-soft=65536 fs.pipe-user-pages-hard=0", facts,
    )  # fmt: skip


def swap(proc: Path) -> Check:
    """Swap makes a memory limit soft where the memory controller is missing."""
    used = [line.split()[0] for line in _lines(proc / "swaps")[1:] if line.split()]
    if not used:
        return Check("host.swap", Status.OK, "none", facts={"areas": []})
    return Check(
        "host.swap", Status.INFO, f"on {', '.join(used)}; runs are kept out of it where the memory controller is there",
        facts={"areas": used},
    )  # fmt: skip


def launcher() -> Check:
    """The launcher's executable, beside the package."""
    package = importlib.util.find_spec("immured")
    places = list(package.submodule_search_locations or ()) if package else []
    for place in places:
        path = Path(place) / "_native" / LAUNCHER
        if os.access(path, os.X_OK):
            return Check("immured.launcher", Status.OK, str(path), facts={"path": str(path)})
    return Check(
        "immured.launcher", Status.FAIL, f"{LAUNCHER} is not installed with the package",
        "build it: `make build` in a checkout, or install a wheel for this platform",
    )  # fmt: skip


def native() -> Iterator[Check]:
    """The compiled modules."""
    for name in ("immured._core", "immured._abi"):
        try:
            importlib.import_module(name)
        except ImportError as failed:
            yield Check(
                f"immured.{name.rpartition('.')[2].strip('_')}", Status.FAIL, f"{name} cannot be loaded: {failed}",
                "build it: `make build` in a checkout, or install a wheel for this Python",
            )  # fmt: skip
        else:
            yield Check(f"immured.{name.rpartition('.')[2].strip('_')}", Status.OK, f"{name} is there")


def _number(path: Path) -> int:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].strip().isdigit() else 0


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
