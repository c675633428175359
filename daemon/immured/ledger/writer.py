"""The thread that makes queued lines durable: it takes all there are, one write, one fdatasync, then the news.

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


class Listener(Protocol):
    """Who owns the ledger's state; every method is called on the writer's thread."""

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
        # Held while there is nothing to do; whoever brings work to a sleeping writer releases it.
        self._work = threading.Lock()
        self._work.acquire()
        self._thread = threading.Thread(target=self._run, name="immured-ledger", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, line: bytes, leaf: bytes) -> None:
        """Queue a line, newline included, with its leaf hash."""
        with self._lock:
            self._queue.append((line, leaf))
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
            self._asleep = not batch and not self._stopping
        return batch

    def _sleep(self, timeout: float | None) -> None:
        if self._work.acquire(timeout=-1 if timeout is None else max(timeout, 0.0)):
            return
        with self._lock:
            if self._asleep:
                self._asleep = False
                return
        self._work.acquire()  # work came just as the time was up: take the release that came with it

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
            timeout = self._listener.idle()
            while True:
                batch = self._take()
                if batch:
                    data = b"".join([line for line, _ in batch])
                    self._write(data)
                    self._log.sync()
                    self._listener.committed([leaf for _, leaf in batch], len(data))
                    timeout = self._listener.idle()
                    continue
                if self._stopping:
                    return
                before = time.monotonic()
                self._sleep(timeout)
                if timeout is not None and time.monotonic() - before >= timeout:
                    timeout = self._listener.idle()
        except BaseException as error:  # noqa: BLE001  whatever ends this thread, all who wait must hear of it
            self._listener.failed(error)
