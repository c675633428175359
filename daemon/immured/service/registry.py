"""The sandboxes that live now, each with who may end it. Pure bookkeeping; the launcher does the ending."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from enum import StrEnum

from immured.errors import Refused
from immured.identity.actor import DEFAULT, Actor
from immured.identity.policy.warrant import Target
from immured.identity.quotas import Lease
from immured.isolation.abi import Cause

__all__ = ["LiveRun", "Registry", "RunState"]


class RunState(StrEnum):
    """How far a run has come."""

    PREPARING = "preparing"
    RUNNING = "running"


class LiveRun:
    """One sandbox. `number` is the launcher's name for it, `sandbox` everybody else's; `started_ms` since the epoch.
    `target` is what a warrant is asked about; `lease`, what it takes of its tenant's quota, ends with it.
    """

    __slots__ = (
        "_kill",
        "_over",
        "command",
        "detach",
        "key_id",
        "killed",
        "lease",
        "number",
        "sandbox",
        "started_ms",
        "state",
        "target",
        "uid",
        "waiters",
    )

    def __init__(
        self,
        number: int,
        actor: Actor,
        started_ms: int,
        command: str,
        kill: Callable[[int, Cause], None],
        sandbox: str | None = None,
    ) -> None:
        self.number = number
        self.sandbox = sandbox or "s" + secrets.token_hex(10)
        self.key_id = actor.key_id
        self.uid = actor.uid
        self.target = Target(actor.tenant, actor.project, actor.owners)
        self.started_ms = started_ms
        self.command = command
        self.detach = False
        self.killed = False
        self.lease: Lease | None = None
        self.waiters: list[asyncio.Event] = []
        self.state = RunState.PREPARING
        self._kill = kill
        self._over: Callable[[LiveRun], None] | None = None

    @property
    def names(self) -> Mapping[str, str]:
        """What entries and results call it."""
        return {"sandbox": self.sandbox}

    def of_class(self, manifest_class: str) -> None:
        """Its manifest is chosen."""
        self.target = replace(self.target, manifest_class=manifest_class)

    def let_go(self) -> None:
        """Its intent is durable."""
        self.state = RunState.RUNNING

    def close(self, result: Mapping[str, object] | None) -> None:
        """It is over."""
        del result  # its reply has it
        if self._over is not None:
            self._over(self)

    def on_close(self, over: Callable[[LiveRun], None]) -> None:
        """Whom `close` tells."""
        self._over = over

    def kill(self, cause: Cause = Cause.KILLED) -> None:
        """End it; the first cause wins, and a run that is over already is left alone."""
        self.killed = True
        self._kill(self.number, cause)

    def to_map(self) -> dict[str, object]:
        """What `status` shows to those who may see it."""
        row: dict[str, object] = {
            "sandbox": self.sandbox,
            "state": self.state.value,
            "key": self.key_id,
            "uid": self.uid,
            "started_ms": self.started_ms,
            "command": self.command,
            "detached": self.detach,
        }
        named = {"tenant": self.target.tenant, "project": self.target.project}
        return row | {name: value for name, value in named.items() if value != DEFAULT}


class Registry:
    """Live runs by tenant and sandbox name, bounded."""

    def __init__(
        self, max_runs: int, kill: Callable[[int, Cause], None], numbers: Callable[[], int] | None = None
    ) -> None:
        """`numbers` gives the launcher's names, each once."""
        self._max_runs = max_runs
        self._kill = kill
        self._runs: dict[tuple[str, str], LiveRun] = {}
        self._groups = 0
        self._numbers = numbers or itertools.count(1).__next__
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[LiveRun]:
        return iter(list(self._runs.values()))

    def find(self, tenant: str, sandbox: str) -> LiveRun | None:
        """The live run of that name, or None: of another tenant's nothing is looked at."""
        return self._runs.get((tenant, sandbox))

    def find_anywhere(self, sandbox: str) -> LiveRun | None:
        """The live run of that name in whatever tenant: for who may reach all of them."""
        return next((run for run in self if run.sandbox == sandbox), None)

    @property
    def places(self) -> int:
        """How many runs there may be at a time."""
        return self._max_runs

    @property
    def free(self) -> int:
        """How many more could be opened now."""
        return self._max_runs + self._groups - len(self._runs)

    def open(self, actor: Actor, now_ms: int, command: str, sandbox: str | None = None) -> LiveRun:
        """A new run's place. Raises Refused `busy` where all are taken."""
        if self.free <= 0:
            raise Refused("busy", f"{self._max_runs} sandboxes live, which is the bound", "try again when some ended")
        return self._enter(LiveRun(self._numbers(), actor, now_ms, command, self._kill, sandbox))

    def open_group(
        self, actor: Actor, now_ms: int, command: str, name: str, stop: Callable[[int, Cause], None]
    ) -> LiveRun:
        """Many runs under one command: takes no place, is found, ended (by `stop`) and waited for as a run is."""
        self._groups += 1
        return self._enter(LiveRun(self._numbers(), actor, now_ms, command, stop, name))

    def close_group(self, group: LiveRun) -> None:
        """All of it is over."""
        self._groups -= 1
        self.close(group)

    def _enter(self, run: LiveRun) -> LiveRun:
        run.on_close(self.close)
        self._runs[run.target.tenant, run.sandbox] = run
        self._idle.clear()
        return run

    def close(self, run: LiveRun) -> None:
        """It is over."""
        self._runs.pop((run.target.tenant, run.sandbox), None)
        if run.lease is not None:
            run.lease.release()
        for waiter in run.waiters:
            waiter.set()
        if not self._runs:
            self._idle.set()

    async def wait_over(self, run: LiveRun, seconds: float) -> bool:
        """Wait until that run is over, at most so many seconds. Whether that came to pass."""
        if (run.target.tenant, run.sandbox) not in self._runs:
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
