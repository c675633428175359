"""Files by descriptor: nothing is followed, and no FIFO or device is waited for."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

__all__ = ["forget", "names_in", "open_at", "opened", "read_at", "write_at"]


def open_at(name: str, flags: int, directory: int | None, *, follow: bool = False) -> int:
    """A regular file, or a directory where the flags say so; the caller's to close. Raises OSError."""
    flags |= os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (0 if follow else os.O_NOFOLLOW)
    fd = os.open(name, flags, 0o640, dir_fd=directory)
    if not flags & os.O_DIRECTORY and not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", name)
    return fd


@contextlib.contextmanager
def opened(name: str, flags: int, directory: int | None, *, follow: bool = False) -> Iterator[int]:
    """The same, closed at the end."""
    fd = open_at(name, flags, directory, follow=follow)
    try:
        yield fd
    finally:
        os.close(fd)


def read_at(fd: int, offset: int, length: int) -> bytes:
    """So many bytes, or what there is of them. Raises OSError."""
    pieces: list[bytes] = []
    while length and (piece := os.pread(fd, length, offset)):
        pieces.append(piece)
        offset, length = offset + len(piece), length - len(piece)
    return b"".join(pieces)


def write_at(fd: int, offset: int, data: bytes) -> None:
    """All of it. Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        offset, view = offset + written, view[written:]


def forget(fd: int) -> None:
    """Have the next read come from what holds the file, where the kernel can be asked for that."""
    with contextlib.suppress(OSError):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def names_in(folder: str, directory: int) -> list[str]:
    """What a folder holds, sorted; nothing where it is not there. Raises OSError."""
    try:
        with opened(folder, os.O_RDONLY | os.O_DIRECTORY, directory) as fd, os.scandir(fd) as entries:
            return sorted(entry.name for entry in entries)
    except FileNotFoundError:
        return []
