"""Bytes in and out of a running sandbox, through pipes, on the event loop. Nothing is buffered without a bound.

A payload that does not read its input holds up the connection that feeds it; a client that does not read holds up the
payload. The broker's ends alone are non-blocking: the flag belongs to the open file, and the payload's end is another.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from immured.service.channel import Channel
from immured.wire.data_frames import DataFrames
from immured.wire.messages import MAX_CAPTURE, MAX_DATA, StreamRecord, data_body

__all__ = ["Held", "Input", "Output", "OutputBound", "make_pipe"]

_HOLD_AT: Final = 256 * 1024
_READ: Final = MAX_DATA
_READS_AT_ONCE: Final = 4
_GROWN: Final = 256 * 1024
"""Bytes that the pipe of a program may hold that wrote as much as the usual one does before it was read once."""
_MAX_DRAIN: Final = 4 << 20  # a pipe holds at most 1 MiB


def make_pipe() -> tuple[int, int]:
    """A close-on-exec pipe, both ends blocking: (read, write). Raises OSError."""
    return os.pipe2(os.O_CLOEXEC)


class OutputBound:
    """The limit `output`, which stdout and stderr share. `limit` None: none."""

    __slots__ = ("_left", "_passed", "exceeded")

    def __init__(self, limit: int | None, passed: Callable[[], None]) -> None:
        self._left = limit
        self._passed = passed
        self.exceeded = False

    def take(self, wanted: int) -> int:
        """How many of `wanted` bytes still count. The first time that it is not all of them, `passed` is called."""
        if self._left is None or wanted <= self._left:
            if self._left is not None:
                self._left -= wanted
            return wanted
        kept, self._left = self._left, 0
        self.exceeded = True
        self._passed()
        return kept


class Output:
    """One of stdout and stderr: captured, or sent on as data frames, digested either way.

    `fd` is the pipe's read end, owned. `channel` None: captured. Nothing is read before `watch` or `drain`.
    """

    def __init__(self, name: str, fd: int, bound: OutputBound, re: bytes, channel: Channel | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._name = name
        self._fd: int | None = fd
        self._bound = bound
        self._re = re
        self._channel = channel
        self._frames = None if channel is None else DataFrames(re, name)
        self._digest = hashlib.sha256()
        self._length = 0
        self._kept = bytearray()
        self._watched = False
        self._grown = False
        self._waiting_for_client = False
        self._left: int | None = None
        self._over: asyncio.Future[None] | None = None
        os.set_blocking(fd, False)

    def _readable(self) -> None:
        """A few reads for one wake-up; a program that writes much is given a pipe that holds more."""
        for _ in range(_READS_AT_ONCE):
            if self._read() < _READ or not self._watched:
                return
        if not self._grown and self._fd is not None:
            self._grown = True
            with contextlib.suppress(OSError):  # what one user's pipes may hold together is bounded
                fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, _GROWN)

    def watch(self) -> None:
        """Read from now on whatever comes. Twice is once."""
        if self._fd is not None and not self._watched and not self._waiting_for_client:
            self._watched = True
            self._loop.add_reader(self._fd, self._readable)

    def _unwatch(self) -> None:
        if self._fd is not None and self._watched:
            self._watched = False
            self._loop.remove_reader(self._fd)

    @property
    def streamed(self) -> bool:
        """Whether it goes as data frames instead of being captured."""
        return self._channel is not None

    @property
    def captured(self) -> bytes:
        """What a reply carries: the first 256 KiB."""
        return bytes(self._kept)

    @property
    def captured_bytes(self) -> int:
        """How many bytes that is."""
        return len(self._kept)

    def record(self) -> StreamRecord:
        """What the signed reply says of the stream."""
        truncated = self._channel is None and self._length > MAX_CAPTURE
        return StreamRecord(self._length, self._digest.digest(), truncated)

    async def drain(self, deadline: float) -> None:
        """The payload is dead: take what its pipe still holds, until its end or the loop's time `deadline`, and close.

        Whoever else kept the write end is not waited for longer, and what they write is not read without end. What is
        left is bounded by the pipe, so a client that reads slowly loses none of it.
        """
        self._left = _MAX_DRAIN
        self._waiting_for_client = False
        while self._read():
            pass
        if self._fd is not None:
            self._over = self._loop.create_future()
            self.watch()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._over
            except TimeoutError:
                self.close()
        if self._channel is not None:
            self._channel.send(data_body(self._re, self._name, b""))

    def close(self) -> None:
        """Read no more. Twice is once."""
        self._unwatch()
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    def _read(self) -> int:
        """One read. How many bytes came; 0: none for now, or its end."""
        if self._fd is None:
            return 0
        try:
            data = os.read(self._fd, _READ)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            data = b""  # a terminal whose other side nobody has open any more
        if not data:
            self.close()
            return 0
        if self._left is not None:
            self._left -= len(data)
            if self._left <= 0:
                self.close()  # more than any pipe holds: somebody who lives on has it, and writes
        kept = self._bound.take(len(data))
        if kept:
            self._take(data if kept == len(data) else data[:kept])
        return len(data)

    def _take(self, data: bytes) -> None:
        self._digest.update(data)
        self._length += len(data)
        channel = self._channel
        if channel is None:
            room = MAX_CAPTURE - len(self._kept)
            if room > 0:
                self._kept += data if len(data) <= room else data[:room]
            return
        if self._frames is not None:
            channel.send_parts(self._frames.parts(data))  # one read is one frame at most
        if channel.congested and self._left is None and not self._waiting_for_client and self._fd is not None:
            self._waiting_for_client = True
            self._unwatch()
            channel.when_drained(self._resume)

    def _resume(self) -> None:
        if self._waiting_for_client:
            self._waiting_for_client = False
            self.watch()


class Held(Protocol):
    """Who feeds an input, and waits where it is full."""

    def hold(self) -> None:
        """Read no further, until `unhold`."""

    def unhold(self) -> None:
        """The inverse of `hold`."""


class Input:
    """A payload's stdin. `fd` is the pipe's write end, owned. While too much waits for it, `channel` is held."""

    def __init__(self, fd: int, channel: Held) -> None:
        self._loop = asyncio.get_running_loop()
        self._fd: int | None = fd
        self._channel = channel
        self._waiting: deque[memoryview] = deque()
        self._size = 0
        self._writing = False
        self._held = False
        self._ended = False
        self._digest = hashlib.sha256()
        self._length = 0
        os.set_blocking(fd, False)

    def record(self) -> StreamRecord:
        """What went into the payload's pipe."""
        return StreamRecord(self._length, self._digest.digest())

    def feed(self, data: bytes) -> None:
        """More input; empty ends it. What comes after the end, or for a payload that closed its stdin, is dropped."""
        if self._fd is None or self._ended:
            return
        if not data:
            self._ended = True
        else:
            self._waiting.append(memoryview(data))
            self._size += len(data)
        if self._writing:
            self._update_hold()
        else:
            self._write()

    def close(self) -> None:
        """Write no more. Twice is once."""
        fd, self._fd = self._fd, None
        if fd is None:
            return
        if self._writing:
            self._loop.remove_writer(fd)
            self._writing = False
        os.close(fd)
        self._waiting.clear()
        self._size = 0
        self._update_hold()

    def _write(self) -> None:
        if self._fd is None:
            return
        try:
            while self._waiting:
                data = self._waiting[0]
                written = os.write(self._fd, data)
                self._size -= written
                self._length += written
                self._digest.update(data[:written])
                if written < len(data):
                    self._waiting[0] = data[written:]
                    break
                self._waiting.popleft()
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:  # EPIPE: nobody reads any more
            self.close()
            return
        if not self._waiting and self._ended:
            self.close()
            return
        wanted = bool(self._waiting)
        if wanted != self._writing:
            self._writing = wanted
            if wanted:
                self._loop.add_writer(self._fd, self._write)
            else:
                self._loop.remove_writer(self._fd)
        self._update_hold()

    def _update_hold(self) -> None:
        wanted = self._size >= _HOLD_AT
        if wanted != self._held:
            self._held = wanted
            if wanted:
                self._channel.hold()
            else:
                self._channel.unhold()
