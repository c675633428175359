"""What of Linux the ledger's files need that Python does not have, or not so."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import Final

__all__ = ["allocate", "is_append_only", "set_append_only", "sync_directory", "write_all", "write_in_place"]

_KEEP_SIZE: Final = 0x01  # FALLOC_FL_KEEP_SIZE, linux/falloc.h
_SET_FLAGS: Final = 0x40086602  # FS_IOC_SETFLAGS, linux/fs.h; its argument is an int, whatever the number says
_GET_FLAGS: Final = 0x80086601  # FS_IOC_GETFLAGS
_APPEND_ONLY: Final = 0x00000020  # FS_APPEND_FL
_NO_COW: Final = 0x00800000  # FS_NOCOW_FL


def _load_fallocate() -> ctypes._NamedFuncPointer | None:
    function = getattr(ctypes.CDLL(None, use_errno=True), "fallocate64", None)
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        function.restype = ctypes.c_int
    return function


_fallocate = _load_fallocate()


def allocate(descriptor: int, offset: int, length: int) -> None:
    """Take disk space for this range without changing the file's size or content. Raises OSError.

    os.posix_fallocate would grow the file, and write zeros where the file system cannot allocate.
    """
    if _fallocate is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    while _fallocate(descriptor, _KEEP_SIZE, offset, length) != 0:
        error = ctypes.get_errno()
        if error != errno.EINTR:
            raise OSError(error, os.strerror(error))


def is_append_only(descriptor: int) -> bool:
    """Whether the file has `chattr +a`; False where the file system has no such thing."""
    return bool(_flags(descriptor) & _APPEND_ONLY)


def set_append_only(descriptor: int, *, wanted: bool) -> None:
    """`chattr +a`, or -a: such a file can be added to, and neither written otherwise, cut, renamed nor removed; root's
    own too. Takes CAP_LINUX_IMMUTABLE. Raises OSError: EOPNOTSUPP, ENOTTY, EINVAL where the file system cannot."""
    flags = struct.unpack("=i", fcntl.ioctl(descriptor, _GET_FLAGS, struct.pack("=i", 0)))[0]
    changed = flags | _APPEND_ONLY if wanted else flags & ~_APPEND_ONLY
    if changed != flags:
        fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("=i", changed))


def _flags(descriptor: int) -> int:
    try:
        flags: int = struct.unpack("=i", fcntl.ioctl(descriptor, _GET_FLAGS, struct.pack("=i", 0)))[0]
    except OSError:
        return 0
    return flags


def write_all(descriptor: int, data: bytes) -> None:
    """Write it, in as many calls as it takes. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_directory(path: Path | int) -> None:
    """Make the names in a directory durable. Raises OSError."""
    if isinstance(path, int):
        os.fsync(path)
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_in_place(descriptor: int) -> None:
    """Have an empty file's blocks written where they are.

    btrfs would write a block anew each time that a line is added to it: the space taken in advance would not be the
    space that is used, and a full disk would stop the ledger all the same. Other file systems refuse; none needs it.
    """
    with contextlib.suppress(OSError):
        fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("=i", _NO_COW))
