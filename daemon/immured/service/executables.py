"""What is about to be executed, digested before the intent that names it: by the payload's own process, or here, where
only root can have made the file what it is. Those are read once, and then known by what they are on their disk."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.isolation.pinned import Executable, check_executables

if TYPE_CHECKING:
    from immured.isolation.compile import Compiled
    from immured.isolation.launcher_runs import Pinned
    from immured.isolation.messages import PinnedFile

__all__ = ["Digests", "executables"]

_KNOWN: Final = 1024
_SETTLED_NS: Final = 2 * 10**9
"""A file that changed less than so long ago may change again within the same tick of its file system's clock."""
_READS: Final = 4
_PIECE: Final = 1 << 20

_Identity = tuple[int, int, int, int, int]


class Digests:
    """SHA-256 of files that only root can change, in hex. A file is known by device, inode, size and both times."""

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._known: OrderedDict[_Identity, str] = OrderedDict()
        self._reading: dict[_Identity, asyncio.Future[str | None]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self.reads = 0
        """How many files were read so far."""

    async def digest(self, fd: int) -> tuple[str, int] | None:
        """Digest and size; None where it changes all the time. Raises OSError."""
        for _ in range(_READS):  # a new version that is renamed over it changes its times too, once
            if (found := await self._digest(fd)) is not None:
                return found
        return None

    async def _digest(self, fd: int) -> tuple[str, int] | None:
        status = os.fstat(fd)
        identity = _identity(status)
        known = self._known.get(identity)
        if known is not None:
            self._known.move_to_end(identity)
            return known, status.st_size
        settled = status.st_uid == 0 and max(status.st_ctime_ns, status.st_mtime_ns) < self._clock() - _SETTLED_NS
        reading = self._reading.get(identity)
        if reading is None:
            reading = self._reading[identity] = self._read(fd, identity)
            reading.add_done_callback(lambda done: self._done(identity, done, settled))
        found = await asyncio.shield(reading)
        return None if found is None else (found, status.st_size)

    def _read(self, fd: int, identity: _Identity) -> asyncio.Future[str | None]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(2, "immured-digest")
        self.reads += 1
        return asyncio.get_running_loop().run_in_executor(self._pool, _read, os.dup(fd), identity)

    def _done(self, identity: _Identity, done: asyncio.Future[str | None], settled: bool) -> None:
        self._reading.pop(identity, None)
        if done.cancelled() or done.exception() is not None or done.result() is None or not settled:
            return
        self._known[identity] = done.result() or ""
        while len(self._known) > _KNOWN:
            self._known.popitem(last=False)


async def executables(
    digests: Digests, compiled: Compiled, telling: Awaitable[Pinned | None]
) -> tuple[Executable, ...] | None:
    """What is about to be executed, all of it allowed; None where the run ended before it was told. `telling`: what
    `Launcher.pinned` answers.

    Raises Refused `denied`, naming the file, and LauncherLostError.
    """
    try:
        pinned = await telling
    except asyncio.CancelledError:
        _close_told(telling)
        raise
    if pinned is None:
        return None
    try:
        found = tuple([await _executable(digests, pinned, index) for index in range(len(pinned.files))])
    finally:
        pinned.close()
    check_executables(compiled, found)
    return found


def _close_told(telling: Awaitable[Pinned | None]) -> None:
    """What was told to nobody: who waited was called off in the same moment."""
    if isinstance(telling, asyncio.Future) and telling.done() and not telling.cancelled() and not telling.exception():
        pinned = telling.result()
        if pinned is not None:
            pinned.close()


async def _executable(digests: Digests, pinned: Pinned, index: int) -> Executable:
    file = pinned.files[index]
    if file.sha256 is not None:
        return Executable(file.path, file.argument, file.sha256.hex(), file.size, changeable=True)
    try:
        if index not in pinned.fds:
            raise OSError(0, "out of descriptors")
        found = await digests.digest(pinned.fds[index])
    except OSError as error:
        raise _unread(file, error.strerror or "it cannot be read") from error
    if found is None:
        raise _unread(file, "it was changed meanwhile")
    return Executable(file.path, file.argument, *found, changeable=False)


def _unread(file: PinnedFile, why: str) -> Refused:
    path = file.path.decode("utf-8", "backslashreplace")[:200]
    return Refused("busy", f"{path} could not be digested: {why}", "try again in a moment", details={"path": path})


def _read(fd: int, identity: _Identity) -> str | None:
    """In a thread; `fd` is closed."""
    try:
        sum_ = hashlib.sha256()
        at = 0
        while piece := os.pread(fd, _PIECE, at):
            sum_.update(piece)
            at += len(piece)
        return sum_.hexdigest() if _identity(os.fstat(fd)) == identity else None
    finally:
        os.close(fd)


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
