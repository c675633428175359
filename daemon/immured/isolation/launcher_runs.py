"""What the launcher runs for this broker, as values: runs, sandboxes, execs in them; and what lives on from before."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from immured.isolation.launcher_link import close_all

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from immured.isolation.messages import Exited, Failed, Frozen, Measures, PinnedFile

__all__ = [
    "Creation",
    "KeptExec",
    "KeptFds",
    "KeptSandbox",
    "Live",
    "LiveExec",
    "LiveSandbox",
    "Outcome",
    "Pinned",
    "resolve",
]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: `report` is the launcher's measurement, or why the run never began.

    `files[i]` is a descriptor of the plan's i-th COLLECT; absent where there is no such regular file. The receiver
    closes them: by hand, by `close()`, or with the outcome as a context manager.
    """

    report: Exited | Failed
    files: Mapping[int, int] = field(default_factory=dict)

    def close(self) -> None:
        """Close every collected descriptor. Call it once."""
        close_all(self.files.values())

    def __enter__(self) -> Outcome:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Pinned:
    """What a run is about to execute: argv[0], then its interpreters. `fds[i]`: the i-th file's descriptor, where only
    root can change it; the receiver closes them, by `close()`."""

    files: tuple[PinnedFile, ...]
    fds: Mapping[int, int] = field(default_factory=dict)

    def close(self) -> None:
        """Close every descriptor. Call it once."""
        close_all(self.fds.values())


@dataclass(frozen=True, slots=True)
class Creation:
    """A sandbox that is being made. `created`: True once it takes execs, False where it ended before; `ended`: how it
    ended, at last. Both raise LauncherLostError."""

    created: Awaitable[bool]
    ended: Awaitable[Outcome]


@dataclass(frozen=True, slots=True)
class KeptFds:
    """What an exec that outlives its broker is given: its log (`struct imd_log`, a memfd), the eventfd that is written
    after every record, the reading ends of the pipes that are its 1 and 2 and the writing end of its 0 (any descriptor
    where it has none). Borrowed: `Launcher.exec` hands over copies."""

    log: int
    event: int
    stdout: int
    stderr: int
    stdin: int

    def all(self) -> tuple[int, int, int, int, int]:
        """In the protocol's order."""
        return self.log, self.event, self.stdout, self.stderr, self.stdin


@dataclass(frozen=True, slots=True)
class KeptExec:
    """An exec that lived on without a broker. The receiver owns `log`, `event` and `stdin`; `started_ns` is of the
    realtime clock, 0 where GO never came (`started` False)."""

    number: int
    log: int
    event: int
    stdin: int
    started: bool
    started_ns: int


@dataclass(frozen=True, slots=True)
class KeptSandbox:
    """A sandbox that lived on without a broker. The receiver owns `record`, what its broker knew of it; `ends_ns` is
    when its time to live is over, by the monotonic clock: a broker does much between hearing of it and adopting it."""

    number: int
    record: int
    ends_ns: int
    frozen: bool
    execs: tuple[KeptExec, ...]


@dataclass(slots=True)
class Live:
    """A run, until its end is told."""

    outcome: asyncio.Future[Outcome]
    gate: int | None  # the writing end of the pipe of GO; None once it went, or never will
    gone: bool = False  # GO was given: from here on it may have run
    pinned: asyncio.Future[Pinned | None] | None = None
    pinned_taken: bool = False

    def is_pinned(self, pinned: Pinned) -> bool:
        """Its warden told what it is about to execute; False where it had done so before."""
        self.pinned = self.pinned or self.outcome.get_loop().create_future()
        return resolve(self.pinned, pinned)

    def shut(self) -> None:
        """GO will never come; after it this changes nothing."""
        gate, self.gate = self.gate, None
        if gate is not None:
            os.close(gate)

    def release(self) -> None:
        """It is over: nobody else will be told anything."""
        self._end_pins(None)
        self.shut()

    def lose(self, error: Exception) -> None:
        """The launcher is gone."""
        self._end_pins(error)
        self.shut()
        _fail(self.outcome, error)

    def _end_pins(self, error: Exception | None) -> None:
        pinned = self.pinned
        if pinned is None:
            return
        if not pinned.done():
            pinned.set_result(None) if error is None else _fail(pinned, error)
        elif not self.pinned_taken and not pinned.cancelled() and pinned.exception() is None:
            found = pinned.result()
            if found is not None:
                found.close()


@dataclass(slots=True)
class LiveExec(Live):
    """An exec: perhaps with a terminal, whose descriptor is its receiver's once somebody asked for it."""

    sandbox: int = 0
    terminal: asyncio.Future[int] | None = None
    terminal_taken: bool = False

    def release(self) -> None:
        """See above."""
        self._end_terminal(LookupError("the exec ended, and had no terminal"))
        self._end_pins(None)
        self.shut()

    def lose(self, error: Exception) -> None:
        """See above."""
        self._end_terminal(error)
        self._end_pins(error)
        self.shut()
        _fail(self.outcome, error)

    def has_terminal(self, master: int) -> bool:
        """Its warden handed it over; False where it had done so before."""
        self.terminal = self.terminal or self.outcome.get_loop().create_future()
        return resolve(self.terminal, master)

    def _end_terminal(self, error: Exception) -> None:
        terminal = self.terminal
        if terminal is None:
            return
        if not terminal.done():
            _fail(terminal, error)
        elif not self.terminal_taken and not terminal.cancelled() and terminal.exception() is None:
            close_all([terminal.result()])


@dataclass(slots=True)
class LiveSandbox(Live):
    """A sandbox; who asked it something, in the order in which they asked."""

    created: asyncio.Future[bool] = field(kw_only=True)
    freezes: deque[asyncio.Future[None]] = field(default_factory=deque)
    measures: list[asyncio.Future[Measures]] = field(default_factory=list)

    def release(self) -> None:
        """See above."""
        self._end(LookupError("the sandbox ended"))
        resolve(self.created, False)

    def lose(self, error: Exception) -> None:
        """See above."""
        self._end(error)
        _fail(self.created, error)
        _fail(self.outcome, error)

    def is_frozen(self, now: Frozen) -> None:
        """The answer to who asked first."""
        if not self.freezes:
            return
        answer = self.freezes.popleft()
        if now.errno == 0:
            resolve(answer, None)
        else:
            _fail(answer, OSError(now.errno, os.strerror(now.errno)))

    def is_measured(self, measures: Measures) -> None:
        """The answer to everybody."""
        waiting, self.measures = self.measures, []
        for one in waiting:
            resolve(one, measures)

    def _end(self, error: Exception) -> None:
        self.shut()
        for freeze in self.freezes:
            _fail(freeze, error)
        for measure in self.measures:
            _fail(measure, error)


def resolve(future: asyncio.Future[Any], value: object) -> bool:
    """Whether somebody may still hear it."""
    if future.done():
        return False
    future.set_result(value)
    return True


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # not everybody waits
