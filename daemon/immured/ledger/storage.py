"""The ledger's I/O edge: the stream of lines, small files written whole, one lock. Tests put in one that fails."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Protocol

from immured.errors import ConfigurationError
from immured.ledger.disk import sync_directory, write_all, write_in_place
from immured.ledger.posix_log import Direct, PosixLog
from immured.ledger.reader import Readable
from immured.ledger.segments import LOG, Part

__all__ = ["LOG", "LogFile", "PosixStorage", "Storage"]

_LOCK: Final = "lock"


class LogFile(Protocol):
    """The ledger's stream of lines: sealed segments, which are only read, and the file that is written. Offsets are the
    stream's. Every method raises OSError; no method retries."""

    def direct(self) -> Direct | None:
        """The file that is written, until `turn`; None where only `write` and `sync` can."""

    def parts(self) -> Sequence[Part]:
        """The files, oldest first; the last one is written."""

    def prepare(self, line: bytes, room: int) -> None:
        """Make the next file, which begins with `line` (its newline included) and has disk space for `room` more bytes,
        where the file system can promise that; durable when this returns, and not in use. Done anew, it replaces it."""

    def turn(self) -> None:
        """Seal the file that is written, and have the prepared one be it; durable when this returns. All that was
        written has to be synced. After an error neither file may be touched again."""

    def beside(self) -> AbstractContextManager[Readable]:
        """The stream once more, for whoever reads while others write."""

    def is_fixed(self, name: str) -> bool:
        """Whether a sealed file may only be added to, so that it cannot be removed."""

    def retire(self, name: str) -> None:
        """Remove a sealed file, the oldest; durable when this returns. Beside whoever writes; then comes `look`."""

    def look(self) -> None:
        """See which files there are, after one was removed."""

    def size(self) -> int:
        """Where the stream ends."""

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
        """Cut it so that it ends at `size`, and give back space beyond. EINVAL where a sealed file would be cut."""

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


class PosixStorage:
    """`Storage` over a directory that is root's alone (0700)."""

    def __init__(self, directory: Path, *, synced: bool = True) -> None:
        """Without `synced`, lines are durable when the kernel sees fit: for tests."""
        self._directory = directory
        self._synced = synced
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
        return PosixLog(self._directory, synced=self._synced)

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
                    write_in_place(descriptor)
                os.fchmod(descriptor, mode)
                write_all(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.rename(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)
        if path.parent != self._directory:
            sync_directory(self._directory)

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
