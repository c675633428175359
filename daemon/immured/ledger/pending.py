"""How far the ledger is durable, and who waits for it: threads, and event loops with one wake-up each per batch."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
from typing import NamedTuple

from immured.errors import Refused

__all__ = ["Completion", "Pending", "Receipt"]


class Receipt(NamedTuple):
    """Where an entry stands: its index and its 32-byte leaf hash."""

    seq: int
    leaf: bytes


class Completion:
    """A count that only grows, until it fails for good."""

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._moved = threading.Condition(self._lock)
        self._count = count
        self._failure: Refused | None = None
        self._order = itertools.count()
        self._waiting: dict[asyncio.AbstractEventLoop, list[tuple[int, int, asyncio.Future[None]]]] = {}

    @property
    def count(self) -> int:
        """Entries that are durable."""
        return self._count

    @property
    def failure(self) -> Refused | None:
        return self._failure

    def reached(self, seq: int) -> bool:
        """Whether the entry `seq` is durable. Raises Refused when it will never be."""
        if seq < self._count:
            return True
        if self._failure is not None:
            raise _again(self._failure)
        return False

    async def until(self, seq: int) -> None:
        """Wait until the entry `seq` is durable. Raises Refused when it will never be."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if self.reached(seq):
                return
            future: asyncio.Future[None] = loop.create_future()
            heapq.heappush(self._waiting.setdefault(loop, []), (seq, next(self._order), future))
        await future

    def wait(self, seq: int, timeout: float | None = None) -> None:
        """The same for a thread. Raises TimeoutError too, when `timeout` seconds have passed."""
        with self._moved:
            if not self._moved.wait_for(lambda: self.reached(seq), timeout):
                raise TimeoutError(f"entry {seq} is not durable yet")

    def advance(self, count: int) -> None:
        """From the writer: entries below `count` are durable."""
        with self._lock:
            self._count = count
            loops = [loop for loop, heap in self._waiting.items() if heap and heap[0][0] < count]
            self._moved.notify_all()
        self._wake(loops)

    def fail(self, failure: Refused) -> None:
        """From the writer: nothing more will be."""
        with self._lock:
            self._failure = failure
            loops = list(self._waiting)
            self._moved.notify_all()
        self._wake(loops)

    def _wake(self, loops: list[asyncio.AbstractEventLoop]) -> None:
        for loop in loops:
            try:
                loop.call_soon_threadsafe(self._release, loop)
            except RuntimeError:  # the loop is closed; so are its tasks
                with self._lock:
                    self._waiting.pop(loop, None)

    def _release(self, loop: asyncio.AbstractEventLoop) -> None:
        done: list[asyncio.Future[None]] = []
        with self._lock:
            heap, failure = self._waiting.get(loop, []), self._failure
            while heap and heap[0][0] < self._count:
                done.append(heapq.heappop(heap)[2])
            failed = [future for _, _, future in heap] if failure is not None else []
            if failed or not heap:
                self._waiting.pop(loop, None)
        for future in done:
            if not future.done():
                future.set_result(None)
        for future in failed:
            if not future.done() and failure is not None:
                future.set_exception(_again(failure))


def _again(failure: Refused) -> Refused:
    """A refusal of its own for everyone who hears of it: exceptions collect tracebacks."""
    return Refused(failure.code, failure.message, failure.remedy, details=failure.details)


class Pending:
    """An entry that has its place and is on its way to the disk."""

    __slots__ = ("_completion", "receipt")

    def __init__(self, receipt: Receipt, completion: Completion) -> None:
        self.receipt = receipt
        self._completion = completion

    def is_durable(self) -> bool:
        """Whether it is, now. Raises Refused("ledger_unavailable") where it never will be."""
        return self._completion.reached(self.receipt.seq)

    async def durable(self) -> Receipt:
        """Wait on the running event loop until the entry is durable. Raises Refused("ledger_unavailable")."""
        await self._completion.until(self.receipt.seq)
        return self.receipt

    def wait(self, timeout: float | None = None) -> Receipt:
        """Wait in this thread. Raises Refused("ledger_unavailable"), TimeoutError."""
        self._completion.wait(self.receipt.seq, timeout)
        return self.receipt
