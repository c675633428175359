"""Where the ledger and the callers' files live: how fast it syncs, how much is free, and whether it can be idmapped."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from immured.host import syscalls
from immured.host.check import Check, Status, errno_name, is_root, untried
from immured.host.quota import volume_means

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["existing", "file_system", "probe"]

SYNCS = 25
SLOW_SYNC_MS = 0.5
ENTRY_BYTES = 400
FREE_WARN = 1 << 30
FREE_FAIL = 64 << 20
VOLATILE = frozenset({"tmpfs", "ramfs"})


def probe(state: Path, proc: Path = Path("/proc")) -> Iterator[Check]:
    """Every finding about storage, for the state directory (or its nearest existing parent) and for temporary files."""
    place = existing(state)
    mountinfo = (proc / "self/mountinfo").read_text()
    yield free(place)
    if not is_root():
        yield from map(
            untried,
            ("storage.sync", "storage.volumes", "storage.idmap.state", "storage.idmap.home", "storage.idmap.tmp"),
        )
        return
    yield ledger_disk(place, file_system(place, mountinfo))
    yield volumes(place)
    yield idmapped("storage.idmap.state", place, mountinfo)
    yield idmapped("storage.idmap.home", existing(Path("/home")), mountinfo)
    yield idmapped("storage.idmap.tmp", Path(tempfile.gettempdir()), mountinfo)


def volumes(place: Path) -> Check:
    """By what a tenant's volume would be bounded (docs/storage.md)."""
    means = volume_means(place)
    facts: dict[str, object] = {"means": means}
    if means:
        return Check("storage.volumes", Status.OK, f"volumes are bounded by a {means} each", facts=facts)
    return Check(
        "storage.volumes",
        Status.WARN,
        "nothing can bound a volume: no project quotas are enforced, and there are no loop devices or no mkfs.ext4",
        "mount the state directory's file system with prjquota, or install e2fsprogs",
        facts,
    )


def existing(path: Path) -> Path:
    """The nearest of `path` and its parents that exists."""
    path = path.absolute()
    return next(candidate for candidate in (path, *path.parents) if candidate.exists())


def file_system(path: Path, mountinfo: str) -> str:
    """The type of the file system that holds `path` (`ext4`), or `unknown`."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in reversed(mountinfo.splitlines()):
        before, _, after = line.partition(" - ")
        if before.split()[2] == wanted:
            return after.split()[0]
    return "unknown"


def ledger_disk(place: Path, kind: str) -> Check:
    """Time what every run does twice: append an entry and make it durable."""
    try:
        median = sync_time(place)
    except OSError as failed:
        return Check(
            "storage.sync", Status.FAIL, f"cannot write in {place}: {errno_name(failed.errno or 0)}",
            "choose a state directory on a local, writable disk (--state)",
        )  # fmt: skip
    facts = {"path": str(place), "file_system": kind, "fdatasync_ms": round(median, 3)}
    said = f"fdatasync takes {median:.2f} ms on {place} ({kind})"
    if kind in VOLATILE:
        return Check(
            "storage.sync", Status.WARN, f"{place} is a {kind}: the ledger will not survive a reboot",
            "put the state directory on a disk", facts,
        )  # fmt: skip
    if median > SLOW_SYNC_MS:
        return Check(
            "storage.sync", Status.WARN, f"{said}: every run waits for two of them",
            "put the state directory on a faster disk; one with power-loss protection syncs in under 0.1 ms", facts,
        )  # fmt: skip
    return Check("storage.sync", Status.OK, said, facts=facts)


def sync_time(place: Path) -> float:
    """The median, in milliseconds, of an append of one entry's size followed by fdatasync."""
    taken = []
    with tempfile.TemporaryFile(dir=place, buffering=0) as file:
        for _ in range(SYNCS):
            start = time.perf_counter()
            file.write(bytes(ENTRY_BYTES))
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter() - start) * 1000)
    return statistics.median(taken)


def free(place: Path) -> Check:
    """Space for the ledger. When it ends, runs are refused, and those that live are still recorded."""
    left = shutil.disk_usage(place).free
    inodes = os.statvfs(place).f_favail
    facts = {"path": str(place), "bytes": left, "inodes": inodes}
    said = f"{left / (1 << 30):.1f} GiB free at {place}"
    if left < FREE_FAIL:
        return Check("storage.free", Status.FAIL, f"{said}: no run would be admitted", "free some space", facts)
    if left < FREE_WARN:
        return Check("storage.free", Status.WARN, said, "free some space: a full ledger refuses runs", facts)
    return Check("storage.free", Status.OK, said, facts=facts)


def idmapped(name: str, place: Path, mountinfo: str) -> Check:
    """Try an idmapped, detached mount of `place`: what makes files written in a run belong to the caller."""
    kind = file_system(place, mountinfo)
    try:
        _try_idmap(place)
    except OSError as failed:
        return Check(
            name, Status.WARN, f"{place} ({kind}) cannot be idmapped: {errno_name(failed.errno or 0)}; "
            "its directories cannot be given to runs",
            "keep what runs read and write on ext4, xfs, btrfs or tmpfs (6.3), or collect files instead (`collect`)",
            {"path": str(place), "file_system": kind, "idmapped": False},
        )  # fmt: skip
    facts = {"path": str(place), "file_system": kind, "idmapped": True}
    return Check(name, Status.OK, f"{place} ({kind}) can be idmapped", facts=facts)


def _try_idmap(place: Path) -> None:
    tree = syscalls.clone_tree(str(place))
    try:
        userns = _mapped_userns()
        try:
            syscalls.set_idmap(tree, userns)
        finally:
            os.close(userns)
    finally:
        os.close(tree)


def _mapped_userns() -> int:
    """A user namespace with one mapped id, held by its descriptor alone once the child that made it is gone."""
    made, tell = os.pipe()
    hold, release = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(made)
            os.close(release)
            syscalls.unshare(syscalls.CLONE_NEWUSER)
            os.write(tell, b".")
            os.read(hold, 1)
        finally:
            os._exit(0)
    os.close(tell)
    os.close(hold)
    try:
        if not os.read(made, 1):
            raise PermissionError(1, "no user namespace can be made")
        for which in ("uid_map", "gid_map"):
            Path(f"/proc/{child}/{which}").write_text("1000 1000 1\n")
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(made)
        os.close(release)
        os.waitpid(child, 0)
