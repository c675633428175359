"""The sandboxes that live now, each with who may end it. Pure bookkeeping; the launcher does the ending."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from enum import StrEnum

from immured.errors import Refused
from immured.isolation.abi import Cause

__all__ = ["LiveRun", "Registry", "RunState"]


class RunState(StrEnum):
    """How far a run has come."""

    PREPARING = "preparing"
    RUNNING = "running"


class LiveRun:
    """One sandbox. `number` is the launcher's name for it, `sandbox` everybody else's; `started_ms` since the epoch."""

    __slots__ = (
        "_kill",
        "command",
        "detach",
        "key_id",
        "killed",
        "number",
        "sandbox",
        "started_ms",
        "state",
        "uid",
        "waiters",
    )

    def __init__(
        self, number: int, key_id: str, uid: int, started_ms: int, command: str, kill: Callable[[int, Cause], None]
    ) -> None:
        self.number = number
        self.sandbox = "s" + secrets.token_hex(10)
        self.key_id = key_id
        self.uid = uid
        self.started_ms = started_ms
        self.command = command
        self.detach = False
        self.killed = False
        self.waiters: list[asyncio.Event] = []
        self.state = RunState.PREPARING
        self._kill = kill

    def kill(self, cause: Cause = Cause.KILLED) -> None:
        """End it; the first cause wins, and a run that is over already is left alone."""
        self.killed = True
        self._kill(self.number, cause)

    def to_map(self) -> dict[str, object]:
        """What `status` shows to those who may see it."""
        return {
            "sandbox": self.sandbox,
            "state": self.state.value,
            "key": self.key_id,
            "uid": self.uid,
            "started_ms": self.started_ms,
            "command": self.command,
            "detached": self.detach,
        }


class Registry:
    """Live runs by sandbox name, bounded."""

    def __init__(self, max_runs: int, kill: Callable[[int, Cause], None]) -> None:
        self._max_runs = max_runs
        self._kill = kill
        self._runs: dict[str, LiveRun] = {}
        self._next = 1
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[LiveRun]:
        return iter(list(self._runs.values()))

    def find(self, sandbox: str) -> LiveRun | None:
        """The live run of that name, or None."""
        return self._runs.get(sandbox)

    def open(self, key_id: str, uid: int, now_ms: int, command: str) -> LiveRun:
        """A new run's place. Raises Refused `busy` where all are taken."""
        if len(self._runs) >= self._max_runs:
            raise Refused("busy", f"{len(self._runs)} sandboxes live, which is the bound", "try again when some ended")
        run = LiveRun(self._next, key_id, uid, now_ms, command, self._kill)
        self._next += 1
        self._runs[run.sandbox] = run
        self._idle.clear()
        return run

    def close(self, run: LiveRun) -> None:
        """It is over."""
        self._runs.pop(run.sandbox, None)
        for waiter in run.waiters:
            waiter.set()
        if not self._runs:
            self._idle.set()

    async def wait_over(self, run: LiveRun, seconds: float) -> bool:
        """Wait until that run is over, at most so many seconds. Whether that came to pass."""
        if run.sandbox not in self._runs:
            return True
        over = asyncio.Event()
        run.waiters.append(over)
        return await _within(over, seconds)

    async def wait_idle(self, seconds: float) -> bool:
        """Wait until nothing lives, at most so many. Whether that came to pass."""
        return await _within(self._idle, seconds)


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
