"""A ledger's stream on a real file system: sealed segments to be read, and the file that is written."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from immured.ledger.disk import allocate, is_append_only, sync_directory, write_all, write_in_place
from immured.ledger.segments import LOG, NEXT, Files, Part, segment_name

__all__ = ["Direct", "PosixLog"]

_UNABLE: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


class Direct(NamedTuple):
    """The file that is written, for who writes it without this: its descriptor, where in the stream it begins, and
    whether what is written is to be synced."""

    fd: int
    base: int
    synced: bool


class PosixLog:
    """`LogFile` in a ledger's directory.

    To seal a file, the next one is made and durable; then the one is renamed, and then the other. A crash between
    leaves no current.jsonl, but the next.jsonl that goes on where the last segment ends: that is completed here. (With
    a hard link there would be no such moment; the daemon may make none.)
    """

    def __init__(self, directory: Path, *, synced: bool = True) -> None:
        """Without `synced`, `sync` does nothing (`durability = "none"`)."""
        self._directory = directory
        self._synced = synced
        self._files = Files.open(directory)
        try:
            if self._files.parts[-1].name == NEXT:
                (directory / NEXT).rename(directory / LOG)
                sync_directory(directory)
                self._files.refresh()
            written = self._files.parts[-1]
            if written.name != LOG:
                raise OSError(
                    errno.EEXIST,
                    f"{written.name} begins as {LOG} does and is longer: they are of copies from before and after a "
                    "rotation; restore both from one copy",
                    str(directory),
                )
            with contextlib.suppress(FileNotFoundError):
                (directory / NEXT).unlink()  # of a rotation that ended before it began
            self._base = written.offset
            self._fd = self._opened(LOG)
        except BaseException:
            self._files.close()
            raise

    def direct(self) -> Direct:
        return Direct(self._fd, self._base, self._synced)

    def parts(self) -> Sequence[Part]:
        return self._files.parts

    def size(self) -> int:
        return self._base + os.fstat(self._fd).st_size

    def read(self, offset: int, length: int) -> bytes:
        if offset >= self._base:
            return os.pread(self._fd, length, offset - self._base)
        sealed = self._files.read(offset, min(length, self._base - offset))
        if offset + len(sealed) < self._base:
            return sealed
        return sealed + os.pread(self._fd, length - len(sealed), 0)

    def write(self, offset: int, data: bytes) -> int:
        return os.pwrite(self._fd, data, offset - self._base)

    def sync(self) -> None:
        if self._synced:
            os.fdatasync(self._fd)

    def allocate(self, offset: int, length: int) -> None:
        allocate(self._fd, offset - self._base, length)

    def truncate(self, size: int) -> None:
        if size < self._base:
            raise OSError(errno.EINVAL, f"what is before byte {self._base} is sealed", str(self._directory))
        os.ftruncate(self._fd, size - self._base)

    def drop_cache(self) -> None:
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def prepare(self, line: bytes, room: int) -> None:
        path = self._directory / NEXT
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(path, flags, 0o600)
        try:
            write_in_place(fd)
            write_all(fd, line)
            try:
                allocate(fd, len(line), room)
            except OSError as error:
                if error.errno not in _UNABLE:
                    raise
            os.fsync(fd)
            sync_directory(self._directory)
        except OSError:
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        finally:
            os.close(fd)

    def turn(self) -> None:
        sealed = segment_name(self._files.parts[-1].first)
        (self._directory / LOG).rename(self._directory / sealed)
        # On the disk first: or the next rename could be all that a crash leaves of the two, and these lines nowhere.
        sync_directory(self._directory)
        (self._directory / NEXT).rename(self._directory / LOG)
        sync_directory(self._directory)
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, os.fstat(self._fd).st_size)  # space beyond its end that was taken in advance
        fd = self._opened(LOG)
        os.close(self._fd)
        self._fd = fd
        self._files.refresh()
        self._base = self._files.parts[-1].offset

    def beside(self) -> Files:
        return Files.open(self._directory)

    def is_fixed(self, name: str) -> bool:
        fd = os.open(self._directory / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            return is_append_only(fd)
        finally:
            os.close(fd)

    def retire(self, name: str) -> None:
        (self._directory / name).unlink()
        sync_directory(self._directory)

    def look(self) -> None:
        self._files.refresh()

    def close(self) -> None:
        self._files.close()
        os.close(self._fd)

    def _opened(self, name: str) -> int:
        fd = os.open(self._directory / name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a regular file", str(self._directory / name))
        return fd
