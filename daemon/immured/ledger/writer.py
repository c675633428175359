"""Makes queued lines durable: all there are go together, one write, one fdatasync, then the news.

The disk's thread does that natively (native/core/ledger_writer.c), and needs the interpreter for nothing: while it
syncs, event loops run, and lines gather for the next. Whoever waits is told by it too. Behind it, by a few milliseconds
at most, another thread tells the listener what is durable: the tree, checkpoints, what is kept, rotation. A `LogFile`
that only Python can write (that of tests) is written by that other thread, and told of by it.

A lone caller may do that work itself (`commit_here`): with nobody to share the sync with, two switches of threads cost
more than they hide. There are two turns, taken in this order: `_listening`, to call the listener; the queue's, to touch
the file. Who wants all to stand still takes both (`turn`).

After a failed write or sync it never touches the file again: what the kernel holds of it, and what the disk holds, can
no longer be known from here. Recovery at the next start reads the disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Iterator
from typing import Protocol

from immured._ledger_write import Completion, Queue
from immured.ledger.reader import MAX_BATCH
from immured.ledger.storage import LogFile

__all__ = ["GroupCommit", "Listener", "Unchanged"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_SWIFT_S = 0.002
_FOLLOW = 1_024  # entries, at most, that the listener is not told of
_FOLLOW_S = 0.005  # and for so long
_ATTENDED = 64  # commits by others, at most, before the thread looks at what else is due


class Unchanged(Exception):
    """What was to be done while nobody writes cannot be done now; nothing was changed."""


class Listener(Protocol):
    """Who owns the ledger's state; its methods are called one at a time."""

    def committed(self, leaves: bytes, length: int) -> None:
        """These entries, in order, of which these are the leaf hashes (32 bytes each), `length` bytes together, are
        durable; who waits for them may have gone on."""

    def failed(self, error: BaseException) -> None:
        """The writer is dead, and what is queued with it."""

    def full(self) -> bool:
        """A write met a full disk. True when room was made and the rest is worth writing."""

    def until(self) -> int | None:
        """How long the stream may grow before `idle` is to be asked, whatever the time; None: there is no such."""

    def idle(self) -> float | None:
        """Between batches: do what is due; the seconds until something else will be, None for never."""


class GroupCommit:
    """One writer of one file. Lines are put into its `queue`, from any thread, in their order."""

    def __init__(self, log: LogFile, end: int, listener: Listener, completion: Completion) -> None:
        self._log = log
        self._end = end
        self._listener = listener
        self.queue = Queue(completion, MAX_BATCH)
        """Where lines go; where they do not rouse it, `commit_here` or `rouse` must follow. Its turn is the file's, and
        taken after `_listening`."""
        self._completion = completion
        self._native = log.direct() is not None
        self._stopping = False
        self._listening = threading.Lock()  # who has it may call the listener, and changes what follows
        self._dead = False
        self._behind = False  # the listener lacks some of what is durable, and is told of nothing more
        self._took_s = 0.0  # the last sync, where Python makes them
        self._unattended = 0  # commits since the thread last looked at what else is due
        self._forever = False  # it sleeps until it is roused: nothing was due when it looked
        self._thread = threading.Thread(target=self._follow, name="immured-ledger", daemon=True)
        self._disk = threading.Thread(target=self._attend, name="immured-disk", daemon=True) if self._native else None
        self._aim(completion.count)

    def start(self) -> None:
        """Raises RuntimeError where there can be no more threads; then there is none."""
        if self._disk is not None:
            self._disk.start()
        try:
            self._thread.start()
        except BaseException:
            self.queue.stop(now=True)
            if self._disk is not None:
                self._disk.join()
            raise

    def rouse(self) -> None:
        """Have the thread commit what is queued, if anything is."""
        self.queue.rouse()

    def commit_here(self) -> None:
        """Commit what is queued in the caller's own thread, where the writer is not at work and the disk is swift;
        elsewhere rouse the writer. Raises nothing: the listener hears of a failure."""
        queue = self.queue
        # A caller's own thread is not for a disk that takes its time: so the last sync says, whoever made it.
        took_s = queue.took_s if self._native else self._took_s
        if took_s >= _SWIFT_S or not self._listening.acquire(blocking=False):
            queue.rouse()
            return
        try:
            if not queue.try_turn():
                queue.rouse()
                return
            try:
                if not self._dead:
                    self._commit()
            except BaseException as error:
                self._fail(error)
                if not isinstance(error, Exception):
                    raise
            finally:
                queue.give_turn()
        finally:
            self._listening.release()
        self._unattended += 1
        if self._forever or self._unattended >= _ATTENDED:
            queue.rouse(True)
        elif not queue.is_empty:
            queue.rouse()

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Nobody writes, and the listener is not called, meanwhile: it was told of all that is durable. What is
        submitted waits."""
        told = False
        try:
            with self._turns():
                if not self._dead:
                    try:
                        told = self._settle()
                    except BaseException as error:
                        self._fail(error)
                        raise
                yield
        finally:
            self.queue.rouse(told)  # the thread that follows hears nothing of that, and may have to act

    @contextlib.contextmanager
    def _turns(self) -> Iterator[None]:
        with self._listening:
            self.queue.take_turn()
            try:
                yield
            finally:
                self.queue.give_turn()

    def condemn(self, error: Exception) -> None:
        """Nothing more is written, for this reason; the listener hears of it as of a failure. Once it has failed, it
        has."""
        with self._turns():
            if not self._dead:
                self._fail(error)

    @contextlib.contextmanager
    def drained(self) -> Iterator[None]:
        """For the listener's `idle`: all that is queued is committed, and nobody writes meanwhile; nor ever after,
        where this ends in another error than Unchanged. Raises OSError."""
        self.queue.take_turn()
        try:
            self._commit()  # what is in no queue any more too: a batch that the disk's thread could not write
            while not self.queue.is_empty:
                self._commit()
            self._settle()
            yield
        except Unchanged:
            raise
        except BaseException:
            self.queue.stop(now=True)
            raise
        finally:
            self.queue.give_turn()

    def moved(self, length: int) -> None:
        """Within `drained`: one entry, so many bytes, stands already in the file, which is another one."""
        self._end += length
        self._aim(self._completion.count + 1)

    def stop(self) -> None:
        """Write what is queued, then end the threads; returns when they have ended."""
        if self._disk is not None:
            self.queue.stop()
            self._disk.join()
        self._stopping = True
        self.queue.rouse(True)
        self._thread.join()
        with self._turns():  # a caller of `commit_here` may be at it still
            if not self._dead:
                try:
                    self._settle()  # the last, which came while it looked whether there was more
                except BaseException as error:  # noqa: BLE001  who closes hears of it as everybody does
                    self._fail(error)

    def _aim(self, count: int) -> None:
        """The native half writes to the file that is written now."""
        direct = self._log.direct()
        if direct is not None:
            self.queue.direct(direct.fd, direct.base, self._end, direct.synced, count)

    def _commit(self) -> None:
        """With both turns: what is next in the queue."""
        if not self._native:
            batch = self.queue.take()
            if batch is not None:
                self._commit_slowly(*batch)
            return
        while trouble := self.queue.commit():
            # Of a write that failed nothing was taken, so the file is as the last one left it.
            if trouble not in _FULL or not self._listener.full():
                raise OSError(abs(trouble), os.strerror(abs(trouble)))
        self._settle()

    def _settle(self) -> bool:
        """With `_listening`: the listener is told of what is durable; whether anything was."""
        if self._behind:
            return False
        try:
            done = self.queue.collect()
            if done is not None:
                self._end += done[1]
                self._listener.committed(*done)
        except BaseException:
            self._behind = True
            raise
        return done is not None

    def _commit_slowly(self, data: bytes, leaves: bytes) -> None:
        self._write(data)
        before = time.monotonic()
        self._log.sync()
        self._took_s = time.monotonic() - before
        self._listener.committed(leaves, len(data))

    def _fail(self, error: BaseException) -> None:
        self._dead = True
        self.queue.stop(now=True)
        try:
            with contextlib.suppress(Exception):  # it is dead for a reason already
                self._settle()
        finally:
            self._listener.failed(error)
            self.queue.rouse(True)

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

    def _attend(self) -> None:
        """On the disk's thread, nearly always without the interpreter."""
        while self.queue.attend():
            with self._turns():
                try:
                    if not self._dead:
                        self._commit()
                except BaseException as error:  # noqa: BLE001  whatever ends this thread, all who wait must hear of it
                    self._fail(error)
            self.queue.rouse(True)  # as after `turn`

    def _follow(self) -> None:
        while True:
            with self._listening:
                try:
                    if self._dead:
                        return
                    if self._native:
                        self._settle()
                    else:
                        self._commit()
                    self._unattended = 0
                    timeout = self._listener.idle()
                    self._forever = timeout is None
                except BaseException as error:  # noqa: BLE001  as above
                    self._fail(error)
                    return
            if self._stopping and self.queue.is_empty:
                return
            self.queue.follow(timeout, _FOLLOW, _FOLLOW_S, self._listener.until())
