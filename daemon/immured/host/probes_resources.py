"""Ids, processes, memory, and the parts of immured itself: what a host may run out of or lack."""

from __future__ import annotations

import grp
import importlib
import importlib.util
import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from immured.host.check import Check, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Claim", "overlapping", "probe"]

SLOT_BASE = 0x70000000
SLOT_SIZE = 65536
SLOT_COUNT = 8 * 511  # eight blocks, so that as many daemons can run side by side
PIDS_WANTED = 1 << 16
THREADS_WANTED = 1 << 16
LAUNCHER = "immured-launcher"


@dataclass(frozen=True)
class Claim:
    """A range of host ids that somebody else has: `first` up to, not including, `end`, by `owner`."""

    first: int
    end: int
    owner: str


def probe(etc: Path = Path("/etc"), proc: Path = Path("/proc")) -> Iterator[Check]:
    """Every finding about ids, limits and our own parts."""
    yield ids([*subordinate(etc / "subuid"), *subordinate(etc / "subgid"), *accounts()])
    yield processes(proc)
    yield threads(proc)
    yield swap(proc)
    yield launcher()
    yield from native()


def subordinate(path: Path) -> Iterator[Claim]:
    """The claims of /etc/subuid or /etc/subgid (`name:first:count`); a missing file claims nothing."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        parts = line.partition("#")[0].strip().split(":")
        if len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit():
            first = int(parts[1])
            yield Claim(first, first + int(parts[2]), f"{parts[0]} in {path}")


def accounts() -> Iterator[Claim]:
    """One claim for each user and group that the host knows by name."""
    for user in pwd.getpwall():
        yield Claim(user.pw_uid, user.pw_uid + 1, f"user {user.pw_name}")
    for group in grp.getgrall():
        yield Claim(group.gr_gid, group.gr_gid + 1, f"group {group.gr_name}")


def overlapping(claims: Iterable[Claim], first: int, end: int) -> list[Claim]:
    """The claims that reach into `first` up to `end`."""
    return [claim for claim in claims if claim.first < end and first < claim.end]


def ids(claims: Iterable[Claim]) -> Check:
    """Each run has 65,536 host ids that are nobody else's, from the blocks of its daemon."""
    end = SLOT_BASE + SLOT_COUNT * SLOT_SIZE
    said = f"{SLOT_BASE} to {end - 1}: {SLOT_COUNT} ranges of {SLOT_SIZE}"
    facts: dict[str, object] = {"first": SLOT_BASE, "end": end, "ranges": SLOT_COUNT}
    taken = overlapping(claims, SLOT_BASE, end)
    if not taken:
        return Check("host.ids", Status.OK, f"{said}, all free", facts=facts)
    owners = ", ".join(sorted({claim.owner for claim in taken})[:5])
    return Check(
        "host.ids", Status.WARN, f"{said}; also claimed by {owners}: a run could own their files",
        "move that claim to ids below the block (see subuid(5)), then remove what it owned", facts,
    )  # fmt: skip


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
