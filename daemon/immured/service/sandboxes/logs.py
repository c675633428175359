"""The log of a kept exec: a ring that its warden writes and the broker reads (struct imd_log, protocol.h).

Offsets here count bytes of output, of both streams together, from the first that there ever was: what the ring's own
offsets are is nobody else's business.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import errno
import fcntl
import itertools
import mmap
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from immured.errors import Refused
from immured.isolation import abi

__all__ = ["CAPACITY", "Log", "Page", "Piece"]

CAPACITY: Final = 1 << 20
"""Bytes of ring; only what is written is memory."""

_HEAD: Final = struct.Struct("=IIQQ2Q")
_PIECE: Final = struct.Struct("=QII")
_ROUND: Final = 16
_STREAMS: Final = {1: "stdout", 2: "stderr"}
_TRIES: Final = 8
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
"""So that neither side's mapping can lose its ground."""

if _HEAD.size != abi.size_of("imd_log") or _PIECE.size != abi.size_of("imd_log_record"):  # pragma: no cover
    raise ImportError("immured._abi is not of this source: run `make build`")


_Pieces = tuple[int, list[int], list[tuple[int, str, bytes]]]
"""The offset of the first, where each of them ends, and each: time, stream, data."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What was read at once. `offset` is its first byte's."""

    offset: int
    time_ms: int
    stream: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a log: where it begins (later than asked for by `lost` bytes, which are gone), and where it goes on."""

    start: int
    next: int
    lost: int
    pieces: tuple[Piece, ...]


class Log:
    """A mapped ring. `fd` (the memfd) and `event` (the eventfd) are owned; `event` must be watched by nobody else."""

    def __init__(self, fd: int, event: int) -> None:
        """Raises ValueError for what is no log; the descriptors are closed then. OSError."""
        self._loop = asyncio.get_running_loop()
        self.fd = fd
        self.event = event
        self._listeners: dict[object, Callable[[], None]] = {}
        self._watched = False
        self._map: mmap.mmap | None = None
        self._seen: _Pieces | None = None
        try:
            size = os.fstat(fd).st_size
            if size < abi.LOG_PAGE + abi.LOG_MIN or size > abi.LOG_PAGE + abi.LOG_MAX:
                raise ValueError(f"a log of {size} bytes")
            self._map = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
            magic, self._capacity, *_ = _HEAD.unpack_from(self._map, 0)
            if magic != abi.LOG_MAGIC or self._capacity != size - abi.LOG_PAGE:
                raise ValueError("no log")
            os.set_blocking(event, False)
        except BaseException:
            self.close()
            raise

    @classmethod
    def make(cls, capacity: int = CAPACITY) -> Log:
        """An empty one. Raises Refused `busy`."""
        fds: list[int] = []
        try:
            fds.append(os.memfd_create("immured-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
            os.ftruncate(fds[0], abi.LOG_PAGE + capacity)
            fcntl.fcntl(fds[0], fcntl.F_ADD_SEALS, _SEALS)
            os.pwrite(fds[0], _HEAD.pack(abi.LOG_MAGIC, capacity, 0, 0, 0, 0), 0)
            fds.append(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        except OSError as error:
            for fd in fds:
                os.close(fd)
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC):
                raise
            raise Refused("busy", f"no log can be made: {error.strerror}", "try again in a moment") from error
        return cls(*fds)

    @property
    def totals(self) -> tuple[int, int]:
        """Bytes of stdout and of stderr, overwritten ones too."""
        _, _, first, second = self._head()
        return first, second

    def read(self, start: int, limit: int, *, following: bool = False) -> Page:
        """Whole pieces from the offset `start` on, about `limit` bytes of output at most (one piece always).

        `following`: for who listens. What came since the last wake-up may be missing, and wakes him.
        """
        first, ends, pieces = self._pieces(following=following)
        found: list[Piece] = []
        size = 0
        index = bisect.bisect_right(ends, start)
        for end, (time_ms, stream, data) in zip(ends[index:], pieces[index:], strict=True):
            kept = data[max(0, start - (end - len(data))) :]
            if found and size + len(kept) > limit:
                break
            found.append(Piece(end - len(kept), time_ms, stream, kept))
            size += len(kept)
        at = ends[-1] if ends else first
        begin = found[0].offset if found else max(start, at)
        return Page(begin, begin + size, max(0, begin - start) if found or at > start else 0, tuple(found))

    def listen(self, who: object, callback: Callable[[], None]) -> None:
        """Call whenever there is more, until `forget`."""
        self._listeners[who] = callback
        if not self._watched and self.event >= 0:
            self._watched = True
            self._loop.add_reader(self.event, self._woken)

    def forget(self, who: object) -> None:
        """The inverse of `listen`. Twice is once."""
        self._listeners.pop(who, None)
        if not self._listeners:
            self.unwatch()

    def wake(self) -> None:
        """There is no more to come: whoever listens looks for himself."""
        self._woken()
        self.unwatch()

    def close(self) -> None:
        """Twice is once."""
        self.unwatch()
        self._listeners.clear()
        mapped, self._map = self._map, None
        if mapped is not None:
            mapped.close()
        fds, self.fd, self.event = (self.fd, self.event), -1, -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)

    def _woken(self) -> None:
        self._seen = None
        with contextlib.suppress(OSError):
            os.eventfd_read(self.event)
        for callback in list(self._listeners.values()):
            callback()

    def unwatch(self) -> None:
        """There will be no more. Twice is once."""
        if self._watched:
            self._watched = False
            self._loop.remove_reader(self.event)
        self._seen = None

    def _head(self) -> tuple[int, int, int, int]:
        """start, end, and how much there was of each stream."""
        assert self._map is not None  # noqa: S101 - nobody reads a closed log
        _, _, start, end, first, second = _HEAD.unpack_from(self._map, 0)
        return start, end, first, second

    def _pieces(self, *, following: bool) -> _Pieces:
        """All that is whole. However many follow it, it is looked through once for each wake-up."""
        if following and self._seen is not None:
            return self._seen
        first, pieces = self._look()
        ends = list(itertools.accumulate((len(data) for _, _, data in pieces), initial=first))[1:]
        if following and self._watched:
            self._seen = first, ends, pieces
        return first, ends, pieces

    def _look(self) -> tuple[int, list[tuple[int, str, bytes]]]:
        """The offset of the first whole piece, and all of them: time, stream, data."""
        assert self._map is not None  # noqa: S101 - as above
        ring = memoryview(self._map)[abi.LOG_PAGE :]
        try:
            for _ in range(_TRIES):
                start, end, first, second = self._head()
                if (start, end, first, second) != self._head():
                    continue
                size = end - start
                low = start % self._capacity
                copy = bytes(ring[low : low + size])
                copy += bytes(ring[: size - len(copy)])
                moved = self._head()[0] - start  # what lies before is torn
                pieces = _parse(copy[max(0, moved) :])
                if pieces is not None and start == 0 and moved == 0:
                    return 0, pieces  # whatever the totals say: the writer counts a piece a moment before it is there
                if pieces is not None:
                    return first + second - sum(len(one[2]) for one in pieces), pieces
        finally:
            ring.release()
        return sum(self._head()[2:]), []


def _parse(copy: bytes) -> list[tuple[int, str, bytes]] | None:
    """The pieces; None where the copy is torn."""
    pieces: list[tuple[int, str, bytes]] = []
    at = 0
    while at < len(copy):
        if len(copy) - at < _PIECE.size:
            return None
        time_ms, stream, length = _PIECE.unpack_from(copy, at)
        begin = at + _PIECE.size
        if stream not in _STREAMS or begin + length > len(copy):
            return None
        pieces.append((time_ms, _STREAMS[stream], copy[begin : begin + length]))
        at = begin + -(-length // _ROUND) * _ROUND
    return pieces
