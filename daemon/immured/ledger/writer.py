"""The thread that makes queued lines durable: it takes all there are, one write, one fdatasync, then the news.

A lone caller may do that work itself (`commit_here`): with nobody to share the sync with, two switches of threads cost
more than they hide. Whoever does it has the turn; the file and what the listener keeps see one at a time.

After a failed write or sync it never touches the file again: what the kernel holds of it, and what the disk holds, can
no longer be known from here. Recovery at the next start reads the disk.
"""

from __future__ import annotations

import errno
import threading
import time
from collections import deque
from typing import Protocol

from immured.ledger.reader import MAX_BATCH
from immured.ledger.storage import LogFile

__all__ = ["GroupCommit", "Listener"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_SWIFT_S = 0.002
_ATTENDED = 64  # commits by others, at most, before the thread looks at what else is due


class Listener(Protocol):
    """Who owns the ledger's state; its methods are called by whoever has the writer's turn, one at a time."""

    def committed(self, leaves: list[bytes], length: int) -> None:
        """These entries, in order, `length` bytes together, are durable now."""

    def failed(self, error: BaseException) -> None:
        """The writer is dead, and what is queued with it."""

    def full(self) -> bool:
        """A write met a full disk. True when room was made and the rest is worth writing."""

    def idle(self) -> float | None:
        """Between batches: do what is due; the seconds until something else will be, None for never."""


class GroupCommit:
    """One writer of one file. `submit` may be called from any thread, in the order of the lines."""

    def __init__(self, log: LogFile, end: int, listener: Listener) -> None:
        self._log = log
        self._end = end
        self._listener = listener
        self._lock = threading.Lock()
        self._queue: deque[tuple[bytes, bytes]] = deque()
        self._asleep = False
        self._stopping = False
        # Who has it may touch the file and call the listener. Taken before `_lock`, never the other way round.
        self._turn = threading.Lock()
        self._dead = False
        self._swift = True  # the last sync was; a caller's own thread is not for a disk that takes its time
        self._unattended = 0  # commits since the thread last looked at what else is due
        self._forever = False  # it sleeps until it is roused: nothing was due when it looked
        # Held while there is nothing to do; whoever brings work to a sleeping writer releases it.
        self._work = threading.Lock()
        self._work.acquire()
        self._thread = threading.Thread(target=self._run, name="immured-ledger", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, line: bytes, leaf: bytes, *, rouse: bool = True) -> None:
        """Queue a line, newline included, with its leaf hash. Without `rouse`, `commit_here` must follow."""
        with self._lock:
            self._queue.append((line, leaf))
            if rouse:
                self._rouse()

    def commit_here(self) -> None:
        """Commit what is queued in the caller's own thread, where the writer is not at work and the disk is swift;
        elsewhere rouse the writer. Raises nothing: the listener hears of a failure."""
        if not self._swift or not self._turn.acquire(blocking=False):
            with self._lock:
                self._rouse()
            return
        try:
            batch = [] if self._dead else self._take()
            if batch:
                self._commit(batch)
        except BaseException as error:
            self._fail(error)
            if not isinstance(error, Exception):
                raise
        finally:
            self._turn.release()
        with self._lock:
            self._unattended += 1
            if self._queue or self._forever or self._unattended >= _ATTENDED:
                self._rouse()

    def stop(self) -> None:
        """Write what is queued, then end the thread; returns when it has ended."""
        with self._lock:
            self._stopping = True
            self._rouse()
        self._thread.join()

    def _rouse(self) -> None:
        if self._asleep:
            self._asleep = False
            self._work.release()

    def _take(self) -> list[tuple[bytes, bytes]]:
        batch: list[tuple[bytes, bytes]] = []
        length = 0
        with self._lock:
            while self._queue and length + len(self._queue[0][0]) <= MAX_BATCH:
                batch.append(self._queue.popleft())
                length += len(batch[-1][0])
        return batch

    def _may_sleep(self, timeout: float | None) -> bool:
        with self._lock:
            self._asleep = not self._queue and not self._stopping
            self._forever = timeout is None
            return self._asleep

    def _sleep(self, timeout: float | None) -> None:
        if self._work.acquire(timeout=-1 if timeout is None else max(timeout, 0.0)):
            return
        with self._lock:
            if self._asleep:
                self._asleep = False
                return
        self._work.acquire()  # work came just as the time was up: take the release that came with it

    def _commit(self, batch: list[tuple[bytes, bytes]]) -> None:
        data = b"".join([line for line, _ in batch])
        self._write(data)
        before = time.monotonic()
        self._log.sync()
        self._swift = time.monotonic() - before < _SWIFT_S
        self._listener.committed([leaf for _, leaf in batch], len(data))

    def _fail(self, error: BaseException) -> None:
        self._dead = True
        self._listener.failed(error)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                written = self._log.write(self._end, bytes(view) if len(view) != len(data) else data)
            except OSError as error:
                # Nothing of this call was taken, so the file is as the last one left it.
                if error.errno in _FULL and self._listener.full():
                    continue
                raise
            if written <= 0:
                raise OSError(errno.EIO, "the file takes no more bytes")
            self._end += written
            view = view[written:]

    def _run(self) -> None:
        try:
            while True:
                with self._turn:
                    if self._dead:
                        return
                    batch = self._take()
                    if batch:
                        self._commit(batch)
                    with self._lock:
                        self._unattended = 0
                    timeout = self._listener.idle()
                if self._may_sleep(timeout):
                    self._sleep(timeout)
                elif self._stopping and not self._queue:
                    return
        except BaseException as error:  # noqa: BLE001  whatever ends this thread, all who wait must hear of it
            self._fail(error)
