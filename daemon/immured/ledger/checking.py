"""A large ledger is verified whole once it serves, and once a day: nobody waits for that, and damage ends it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from immured.errors import Refused
from immured.ledger.checkpoint import Checkpoint
from immured.ledger.reader import Problem, begin
from immured.ledger.scan import swift
from immured.ledger.segments import LOG

__all__ = ["DAY_S", "Checking", "Stream"]

DAY_S: Final = 86_400.0
_RETRY_S: Final = 3_600.0
_MOMENT: Final = 1 << 20  # bytes between two pauses

_log: Final = logging.getLogger("immured")


class Stream(Protocol):
    """The ledger's stream, to be read by one thread: `segments.Files`, or what does as that."""

    @property
    def start(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes: ...

    def placed(self, problem: Problem) -> Problem: ...

    def close(self) -> None: ...


class _Halted(Exception):
    """The ledger is being closed."""


class _Gently:
    """Reads half of the time: what else there is to do goes on."""

    def __init__(self, stream: Stream, halted: threading.Event, began: float) -> None:
        self._stream = stream
        self._halted = halted
        self._since = began
        self._read = 0

    def read(self, offset: int, length: int) -> bytes:
        if self._read >= _MOMENT:
            self._read = 0
            if self._halted.wait(min(1.0, time.monotonic() - self._since)):
                raise _Halted
            self._since = time.monotonic()
        data = self._stream.read(offset, length)
        self._read += len(data)
        return data


class Checking:
    """A thread that verifies what the newest checkpoint covers. `signed` gives that one as it was signed, and where its
    last line ends, whatever the files say by now; `damaged` is told of what was found, once."""

    def __init__(
        self,
        where: str,
        stream: Callable[[], Stream],
        signed: Callable[[], tuple[Checkpoint, int] | None],
        damaged: Callable[[Refused], None],
        every_s: float = DAY_S,
    ) -> None:
        self._where, self._stream, self._signed, self._damaged = where, stream, signed, damaged
        self._every_s = every_s
        self._halted = threading.Event()
        self._thread = threading.Thread(target=self._run, name="immured-check", daemon=True)
        self.checked = 0
        """Entries that the last check found good."""

    def start(self, *, now: bool) -> None:
        """`now`: there is what nobody verified since the start."""
        self._now = now
        self._thread.start()

    def close(self) -> None:
        """End it; returns when it has ended."""
        self._halted.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        pause = 0.0 if self._now else self._every_s
        while not self._halted.wait(pause):
            pause = self._every_s
            try:
                refused = self._check()
            except _Halted:
                return
            except OSError as error:
                # Segments may go while it reads; a disk that cannot be read is nothing to go on with either, but the
                # next append, or the next check, will tell the one from the other.
                _log.warning("%s could not be verified whole: %s", self._where, error)
                pause = min(_RETRY_S, self._every_s)
                continue
            if refused is not None:
                _log.critical("%s: %s; %s", refused.code, refused.message, refused.remedy)
                self._damaged(refused)
                return

    def _check(self) -> Refused | None:
        signed = self._signed()
        if signed is None:
            return None
        head, end = signed
        stream = self._stream()
        try:
            begun = begin(stream, stream.start, {})
            gently = _Gently(stream, self._halted, time.monotonic())
            problem = (
                begun if isinstance(begun, Problem) else swift(gently, end, {head.size: head}, since=begun).problem
            )
            if problem is None:
                self.checked = head.size
                return None
            problem = stream.placed(problem)
        finally:
            stream.close()
        return Refused(
            "ledger_damaged",
            f"{self._where}/{problem.file or LOG}: {problem}",
            "nothing was changed, and nothing more is written; keep the files as evidence, compare with a copy "
            "(`immure ledger compare`), restore it, then restart the daemon",
            details={"path": self._where, "reason": "damaged", "seq": problem.seq},
        )
