"""What an open file is, without asking its file system: fstat() of a FUSE or NFS file can block for good."""

from __future__ import annotations

import ctypes
import os
import struct
from functools import cache
from pathlib import Path
from typing import Final

__all__ = ["LOCAL", "file_system_of", "mode_of"]

_AT_EMPTY_PATH: Final = 0x1000
_AT_STATX_DONT_SYNC: Final = 0x4000
_STATX_TYPE: Final = 1
_MODE_OFFSET: Final = 28

LOCAL: Final = frozenset(
    "ext2 ext3 ext4 xfs btrfs f2fs bcachefs zfs tmpfs ramfs overlay erofs squashfs iso9660 vfat exfat".split()
)
"""File systems whose files neither open, flush nor close by asking another process or host."""

_libc = ctypes.CDLL(None, use_errno=True)
_statx = _libc.statx
_statx.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)


def mode_of(fd: int) -> int:
    """The type bits of `st_mode`. Raises OSError."""
    buffer = ctypes.create_string_buffer(256)
    if _statx(fd, b"", _AT_EMPTY_PATH | _AT_STATX_DONT_SYNC, _STATX_TYPE, buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    (mode,) = struct.unpack_from("=H", buffer.raw, _MODE_OFFSET)
    return int(mode) & 0o170000


def file_system_of(fd: int) -> str | None:
    """The type of the file system that a file was opened on; None where our namespace does not have that mount.

    Memory files (memfd_create) are `tmpfs`. Raises OSError.
    """
    mount = _mount_of(fd)
    if mount == _memory_mount():
        return "tmpfs"
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        if before.split(b" ", 1)[0] == mount:
            return after.split(b" ", 1)[0].decode("ascii", "replace")
    return None


def _mount_of(fd: int) -> bytes:
    for line in Path(f"/proc/self/fdinfo/{fd}").read_bytes().splitlines():
        if line.startswith(b"mnt_id:"):
            return line.split()[1]
    return b""


@cache
def _memory_mount() -> bytes:
    """The kernel's own mount, which every memory file is on and no name can pretend to be."""
    fd = os.memfd_create("immured-probe", os.MFD_CLOEXEC)
    try:
        return _mount_of(fd)
    finally:
        os.close(fd)
