"""Directories and files on the host, of owners that no account has: what callers of tests name."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from immured.isolation.plan import Step
from tests.warden.cell import Peer, Wish

__all__ = [
    "ALICE",
    "BOB",
    "STAFF",
    "directory",
    "give",
    "host_mounts",
    "mounted",
    "shell",
    "tells_mounts_apart",
    "text",
]

ALICE: Final = Peer(61001, 61001)
BOB: Final = 61002
STAFF: Final = 61010
MNT_DETACH: Final = 2
LIBC: Final = ctypes.CDLL(None, use_errno=True)
STATMOUNT: Final = 457


def _knows_numbers_of_mounts() -> bool:
    """Asked by statmount(2) for one that nobody has, the kernel says just that."""
    asked = struct.pack("=IIQQ", 24, 0, 1 << 62, 0)
    LIBC.syscall(STATMOUNT, asked, ctypes.create_string_buffer(512), 512, 0)
    return ctypes.get_errno() == errno.ENOENT


tells_mounts_apart: Final = pytest.mark.skipif(
    not _knows_numbers_of_mounts(), reason="before Linux 6.8 nobody can tell which mount went: whatever goes ends a run"
)


def give(path: Path, uid: int, mode: int, gid: int | None = None) -> Path:
    """Owner and mode."""
    os.chown(path, uid, uid if gid is None else gid)
    path.chmod(mode)
    return path


def directory(path: Path, uid: int, mode: int = 0o755, gid: int | None = None) -> Path:
    """A new directory."""
    path.mkdir()
    return give(path, uid, mode, gid)


def text(path: Path, uid: int, mode: int = 0o644, content: str = "content\n", gid: int | None = None) -> Path:
    """A new file."""
    path.write_text(content)
    return give(path, uid, mode, gid)


def shell(command: str, *mounts: Step, **rest: object) -> Wish:
    """A command line, with what is mounted for it."""
    return Wish(["sh", "-c", command], mounts=mounts, **rest)  # type: ignore[arg-type]


def host_mounts(own: Path) -> list[str]:
    """What is mounted on the host: in `own`, and anywhere but where others have their temporary things."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    others = f"{tempfile.gettempdir()}/"
    points = {line: line.split()[4] for line in lines}
    seen = [line for line, at in points.items() if f"{at}/".startswith(f"{own}/") or not at.startswith(others)]
    return sorted(line.split(" ", 2)[2] for line in seen)


@contextmanager
def mounted(source: str, at: Path, kind: str, flags: int = 0) -> Iterator[None]:
    """Something mounted on the host, at a directory of the test's own."""
    if LIBC.mount(source.encode(), os.fsencode(at), kind.encode(), flags, None) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(at))
    try:
        yield
    finally:
        LIBC.umount2(os.fsencode(at), MNT_DETACH)
