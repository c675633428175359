"""Directories that copies of a ledger go to, and what can go wrong with them: full, gone, hung. Made for real, in
directories that the test made."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from immured.client.throwaway import ThrowawayDaemon

__all__ = ["USER", "configure", "exporters", "full", "memory", "mount_memory", "unmount"]

USER = 64_321
"""Whom the daemons of these tests become: no account, so that a directory can be given to it beforehand."""
MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def configure(state: Path, *exports: Path, checkpoint_s: int = 1, more: str = "") -> None:
    """Have the next daemon become USER, and copy its ledger there."""
    listed = ", ".join(f'"{one}"' for one in exports)
    (state / "config.toml").write_text(
        f'[broker]\nuser = "{USER}"\n\n[ledger]\ncheckpoint_s = {checkpoint_s}\n\n[audit]\nexports = [{listed}]\n{more}'
    )


def mount_memory(at: Path, *, size: str, uid: int = USER) -> None:
    """A small file system of its own."""
    options = f"size={size},mode=0755,uid={uid},gid={uid}"
    if _libc.mount(b"tmpfs", os.fsencode(at), b"tmpfs", 0, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(at))


def unmount(at: Path) -> None:
    if _libc.umount2(os.fsencode(at), MNT_DETACH) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(at))


@contextmanager
def memory(at: Path, *, size: str, uid: int = USER) -> Iterator[Path]:
    """The same for a while."""
    mount_memory(at, size=size, uid=uid)
    try:
        yield at
    finally:
        unmount(at)


@contextmanager
def full(place: Path) -> Iterator[None]:
    """No byte is free there."""
    filler = place / "filler"
    try:
        with filler.open("ab", buffering=0) as file:
            size = 1 << 20
            while size:
                try:
                    file.write(bytes(size))
                except OSError:
                    size //= 2
        yield
    finally:
        filler.unlink()


def exporters(daemon: ThrowawayDaemon) -> list[int]:
    """The processes that copy."""
    found = []
    for task in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (task / "cmdline").read_bytes().split(b"\0")
            parent = int((task / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == daemon.pid and b"immured.service" in words:
                found.append(int(task.name))
    return found
