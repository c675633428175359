"""The ledger's I/O edge: one file that grows, small files written whole, one lock. Tests put in one that fails."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from immured.errors import ConfigurationError

__all__ = ["LOG", "LogFile", "PosixLog", "PosixStorage", "Storage"]

LOG: Final = "current.jsonl"
_LOCK: Final = "lock"
_KEEP_SIZE: Final = 0x01  # FALLOC_FL_KEEP_SIZE, linux/falloc.h
_SET_FLAGS: Final = 0x40086602  # FS_IOC_SETFLAGS, linux/fs.h; its argument is an int, whatever the number says
_NO_COW: Final = 0x00800000  # FS_NOCOW_FL


class LogFile(Protocol):
    """The file of entries. Every method raises OSError; no method retries."""

    def size(self) -> int:
        """Bytes."""

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes; fewer at the end, none past it."""

    def write(self, offset: int, data: bytes) -> int:
        """Write at `offset`, perhaps only a part; the number of bytes written."""

    def sync(self) -> None:
        """When it returns, all that was written is durable, the file's length too."""

    def allocate(self, offset: int, length: int) -> None:
        """Take disk space for this range without changing the file's size or content.

        EOPNOTSUPP or ENOSYS where the file system cannot; ENOSPC or EDQUOT where there is none.
        """

    def truncate(self, size: int) -> None:
        """Cut to `size` bytes and give back space beyond."""

    def drop_cache(self) -> None:
        """Let the next reads come from the disk. Advice; no error."""

    def close(self) -> None:
        """Give up the descriptor."""


class Storage(Protocol):
    """The directory of one ledger. Names are relative to it, with at most one folder."""

    def where(self) -> str:
        """The directory, for messages."""

    def lock(self) -> None:
        """Make this process the only one. Raises ConfigurationError("ledger_in_use")."""

    def unlock(self) -> None:
        """Let others in."""

    def open_log(self) -> LogFile:
        """Open the existing file of entries. Raises OSError."""

    def create_log(self, first: bytes) -> None:
        """Make the file of entries with this content, whole or not at all. Raises FileExistsError, OSError."""

    def write_whole(self, name: str, data: bytes, mode: int = 0o600) -> None:
        """Write a small file, whole or not at all; durable when it returns. Raises OSError."""

    def read_whole(self, name: str) -> bytes:
        """The content of a small file. Raises OSError."""

    def names(self, folder: str) -> Sequence[str]:
        """The names in a folder, sorted; none when it is not there. Raises OSError."""

    def fill(self, name: str, size: int) -> None:
        """Make a file hold `size` bytes of real space. Raises OSError."""

    def remove(self, name: str) -> None:
        """Remove a file; it may be gone already. Raises OSError."""


def _load_fallocate() -> ctypes._NamedFuncPointer | None:
    function = getattr(ctypes.CDLL(None, use_errno=True), "fallocate64", None)
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        function.restype = ctypes.c_int
    return function


_fallocate = _load_fallocate()


class PosixLog:
    """`LogFile` over a descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._fd = descriptor

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._fd, length, offset)

    def write(self, offset: int, data: bytes) -> int:
        return os.pwrite(self._fd, data, offset)

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def allocate(self, offset: int, length: int) -> None:
        # os.posix_fallocate would grow the file, and write zeros where the file system cannot allocate.
        if _fallocate is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        while _fallocate(self._fd, _KEEP_SIZE, offset, length) != 0:
            error = ctypes.get_errno()
            if error != errno.EINTR:
                raise OSError(error, os.strerror(error))

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def drop_cache(self) -> None:
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        os.close(self._fd)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_in_place(descriptor: int) -> None:
    """Have an empty file's blocks written where they are.

    btrfs would write a block anew each time that a line is added to it: the space taken in advance would not be the
    space that is used, and a full disk would stop the ledger all the same. Other file systems refuse; none needs it.
    """
    with contextlib.suppress(OSError):
        fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("=i", _NO_COW))


class PosixStorage:
    """`Storage` over a directory that is root's alone (0700)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock: int | None = None

    def where(self) -> str:
        return str(self._directory)

    def lock(self) -> None:
        descriptor = os.open(self._directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ConfigurationError(
                "ledger_in_use",
                f"another process has the ledger in {self._directory} open",
                "stop the daemon that runs on this state directory, or use another one",
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        self._lock = descriptor

    def unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def open_log(self) -> PosixLog:
        descriptor = os.open(self._directory / LOG, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "not a regular file", str(self._directory / LOG))
        return PosixLog(descriptor)

    def create_log(self, first: bytes) -> None:
        if os.path.lexists(self._directory / LOG):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self._directory / LOG))
        self._write_whole(LOG, first, 0o600, in_place=True)

    def write_whole(self, name: str, data: bytes, mode: int = 0o600) -> None:
        self._write_whole(name, data, mode, in_place=False)

    def _write_whole(self, name: str, data: bytes, mode: int, *, in_place: bool) -> None:
        path = self._directory / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                if in_place:
                    _write_in_place(descriptor)
                os.fchmod(descriptor, mode)
                _write_all(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.rename(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        _sync_directory(path.parent)
        if path.parent != self._directory:
            _sync_directory(self._directory)

    def read_whole(self, name: str) -> bytes:
        return (self._directory / name).read_bytes()

    def names(self, folder: str) -> Sequence[str]:
        try:
            return sorted(path.name for path in (self._directory / folder).iterdir())
        except FileNotFoundError:
            return []

    def fill(self, name: str, size: int) -> None:
        descriptor = os.open(self._directory / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            held = os.fstat(descriptor).st_size
            os.lseek(descriptor, held, os.SEEK_SET)
            while held < size:
                # Random bytes: a file system that compresses would keep no room with zeros.
                held += os.write(descriptor, os.urandom(min(size - held, 1 << 20)))
        finally:
            os.close(descriptor)

    def remove(self, name: str) -> None:
        (self._directory / name).unlink(missing_ok=True)
