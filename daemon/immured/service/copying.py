"""Bytes from one descriptor to another, counted and digested on the way, by threads of their own.

What is digested is what was read, and just that is written: a source that changes meanwhile changes neither. SHA-256
takes longer than the copy, so it has a thread to itself, which no block waits for but the one that needs its memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import queue
import select
import stat
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from immured.errors import Refused

__all__ = ["Copied", "Copying", "copy"]

# All of them together fit a processor's own cache: with 3 MiB it took a tenth longer. A pipe's worth at a time; with a
# quarter of a MiB it took a tenth longer too.
BLOCK: Final = 64 << 10
_BLOCKS: Final = 4
_WINDOW: Final = 64 << 20
_STUCK_S: Final = 60.0
_TICK_MS: Final = 1000
_TELL_S: Final = 0.2

Reserve = Callable[[int, int], Awaitable[object]]
"""Makes room for so many bytes from an offset on, before they are written."""


@dataclass(frozen=True, slots=True)
class Copied:
    """How much it was, and its SHA-256."""

    length: int
    sha256: bytes


class _Stuck(Exception):
    pass


class _Stopped(Exception):
    pass


class Copying:
    """A copy by threads. A regular file is read and written from its beginning, by position; anything else is a pipe's
    end of our own, non-blocking. `most` bytes are taken at the most. `told` hears in a thread how much is done."""

    def __init__(self, source: int, target: int, most: int, told: Callable[[int], object]) -> None:
        self._source, self._target = source, target
        self._most = most
        self._told = told
        self._stop = False
        self._allowed = threading.Condition()
        self._room: int | None = None
        self._full: queue.SimpleQueue[tuple[bytearray, int] | None] = queue.SimpleQueue()
        self._free: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        self._digest = hashlib.sha256()
        self._files = tuple(stat.S_ISREG(os.fstat(fd).st_mode) for fd in (source, target))
        for fd, regular in zip((source, target), self._files, strict=True):
            if not regular:
                os.set_blocking(fd, False)

    def allow(self, room: int) -> None:
        """Write up to this offset; without a call there is no such bound."""
        with self._allowed:
            self._room = room
            self._allowed.notify_all()

    def stop(self) -> None:
        """Come to an end soon."""
        self._stop = True
        with self._allowed:
            self._allowed.notify_all()

    def run(self) -> Copied:
        """All of it, in the calling thread and one more. Raises OSError, Refused `stuck`."""
        for _ in range(_BLOCKS):
            self._free.put(bytearray(BLOCK))
        digesting = threading.Thread(target=self._digest_all, name="immured-digest", daemon=True)
        digesting.start()
        try:
            done = self._move_all()
        finally:
            self._full.put(None)
            digesting.join()
        return Copied(done, self._digest.digest())

    def _move_all(self) -> int:
        done = 0
        while done < self._most:
            if self._stop:
                raise _Stopped
            block = self._free.get()
            got = self._read(memoryview(block)[: min(BLOCK, self._most - done)], done)
            if got == 0:
                break
            self._full.put((block, got))
            self._wait_for_room(done + got)
            self._write(memoryview(block)[:got], done)
            done += got
            self._told(done)
        return done

    def _digest_all(self) -> None:
        while (piece := self._full.get()) is not None:
            block, size = piece
            self._digest.update(memoryview(block)[:size])
            # The mover has written it, or is about to: it takes a block from here only after it wrote the one before.
            self._free.put(block)

    def _wait_for_room(self, end: int) -> None:
        with self._allowed:
            while self._room is not None and self._room < end and not self._stop:
                self._allowed.wait()
        if self._stop:
            raise _Stopped

    def _read(self, into: memoryview, position: int) -> int:
        if self._files[0]:
            return os.preadv(self._source, [into], position)
        while True:
            try:
                return os.readv(self._source, [into])
            except BlockingIOError:
                self._wait(self._source, select.POLLIN)

    def _write(self, data: memoryview, position: int) -> None:
        while data:
            if self._files[1]:
                put = os.pwrite(self._target, data, position)
                position += put
            else:
                try:
                    put = os.writev(self._target, [data])
                except BlockingIOError:
                    self._wait(self._target, select.POLLOUT)
                    continue
            data = data[put:]

    def _wait(self, fd: int, events: int) -> None:
        poll = select.poll()
        poll.register(fd, events)
        for _ in range(int(_STUCK_S * 1000 / _TICK_MS)):
            if self._stop:
                raise _Stopped
            if poll.poll(_TICK_MS):
                return
        raise _Stuck


async def copy(
    source: int,
    target: int,
    *,
    most: int,
    reserve: Reserve | None = None,
    told: Callable[[int], object] | None = None,
) -> Copied:
    """See Copying. `told` is called on the event loop, a few times a second. The descriptors are borrowed: they are in
    no use any more when this returns or raises.

    `reserve` is asked for room a window ahead of what is written, of `most` bytes in all. Raises Refused `copy_failed`
    with the errno, `stuck` where nothing moved for a minute, and what `reserve` raises.
    """
    loop = asyncio.get_running_loop()
    ahead = _Ahead(reserve, most) if reserve is not None else None
    last = loop.time()

    def tell(done: int) -> None:
        nonlocal last
        if ahead is not None and ahead.wants(done):
            loop.call_soon_threadsafe(ahead.wanted.set)
        if told is not None and loop.time() - last >= _TELL_S:
            last = loop.time()
            loop.call_soon_threadsafe(told, done)

    work = Copying(source, target, most, tell)
    if ahead is not None:
        work.allow(0)
    keeper = None if ahead is None else loop.create_task(ahead.keep(work))
    answer: asyncio.Future[Copied] = loop.create_future()
    answer.add_done_callback(_look_at)
    thread = threading.Thread(target=_work, args=(work, loop, answer), name="immured-copy", daemon=True)
    thread.start()
    try:
        return await asyncio.shield(answer)
    except _Stopped:
        if keeper is not None:
            await keeper  # its failure is what stopped it
        raise Refused("stopped", "the copy was stopped", "ask again") from None
    except _Stuck:
        remedy = "a file system behind the sandbox does not answer"
        raise Refused("stuck", "nothing moved for a minute", remedy) from None
    except OSError as error:
        raise _refusal(error) from error
    finally:
        if keeper is not None:
            keeper.cancel()
        work.stop()
        while not answer.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({answer})
        thread.join()  # its answer was its last word


class _Ahead:
    """Room is made one window ahead of what is written."""

    def __init__(self, reserve: Reserve, most: int) -> None:
        self._reserve = reserve
        self._most = most
        self._asked = 0
        self.wanted = asyncio.Event()

    def wants(self, done: int) -> bool:
        """Whether it is time for the next; asked by the thread that writes."""
        if done < self._asked:
            return False
        self._asked += _WINDOW
        return True

    async def keep(self, work: Copying) -> None:
        """Ends when there is room for all; stops the work where there is none."""
        reserved = 0
        try:
            while reserved < self._most:
                size = min(_WINDOW, self._most - reserved)
                await self._reserve(reserved, size)
                reserved += size
                work.allow(reserved)
                if reserved > _WINDOW:
                    await self.wanted.wait()
                    self.wanted.clear()
        except BaseException:
            work.stop()
            raise


def _refusal(error: OSError) -> Refused:
    """What kept the broker from reading or writing."""
    name = errno.errorcode.get(error.errno or 0, "")
    code, remedy = {
        "ENOSPC": ("no_space", "remove something there"),
        "EDQUOT": ("no_space", "remove something there"),
        "EFBIG": ("no_space", "no file may be so large there"),
        "EPIPE": ("cut_short", "what was to take it has refused the rest"),
    }.get(name, ("copy_failed", "look at the file that was passed along"))
    return Refused(code, f"the copy failed: {error.strerror}", remedy, details={"errno": name})


def _look_at(answer: asyncio.Future[Copied]) -> None:
    """Nobody may be left who asks for it."""
    if not answer.cancelled():
        answer.exception()


def _work(work: Copying, loop: asyncio.AbstractEventLoop, answer: asyncio.Future[Copied]) -> None:
    result: Copied | None = None
    failed: BaseException | None = None
    try:
        result = work.run()
    except Exception as error:  # noqa: BLE001 - raised again where it is awaited
        failed = error

    def tell() -> None:
        if failed is not None:
            answer.set_exception(failed)
        elif result is not None:
            answer.set_result(result)

    loop.call_soon_threadsafe(tell)
