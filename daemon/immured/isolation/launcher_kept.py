"""What lives on without a broker, as it is told to the next one: every sandbox that READY named, then its execs.

Ends that were told while nobody listened come by the same way, before or between: they are held until somebody adopts.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from immured.isolation import abi
from immured.isolation.abi import KeptKind
from immured.isolation.launcher_link import close_all
from immured.isolation.launcher_runs import KeptExec, KeptSandbox, Outcome
from immured.isolation.messages import Kept, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

__all__ = ["Keeping"]


@dataclass(slots=True)
class _Sandbox:
    said: Kept
    record: int
    ends_ns: int
    execs: list[KeptExec] = field(default_factory=list)


class Keeping:
    """From READY until everybody was adopted. `heard` is set once every sandbox that READY named spoke, or ended."""

    def __init__(self, *, listening: bool) -> None:
        """`listening`: there was a broker before this one."""
        self.heard = asyncio.Event()
        self.refused: str | None = None  # what of READY this build does not understand
        self.ends: dict[int, Outcome] = {}
        self.sandboxes: tuple[KeptSandbox, ...] = ()
        self._awaited: set[int] = set()
        self._found: dict[int, _Sandbox] = {}
        self._lives: dict[int, asyncio.Future[Outcome]] = {}
        self._listening = listening

    def expect(self, sandboxes: Iterable[int]) -> None:
        """What READY named."""
        self._awaited = set(sandboxes)
        self._look()

    def awaits(self, sandbox: int) -> bool:
        """Whether a KEPT of this sandbox is news."""
        return self._listening and (sandbox in self._awaited or sandbox in self._found)

    def take(self, number: int, kept: Kept, fds: list[int], outcome: asyncio.Future[Outcome]) -> bool:
        """Take one KEPT and its descriptors; False where its end has been told already, or it came without them (this
        process is out of descriptors). Raises ProtocolError."""
        if kept.kind is KeptKind.SANDBOX:
            self._awaited.discard(number)
            if fds and number not in self.ends:
                self._found[number] = _Sandbox(kept, fds.pop(0), time.monotonic_ns() + kept.wall_left_ns)
                self._lives[number] = outcome
        else:
            sandbox = self._found.get(kept.sandbox)
            if sandbox is None:
                raise ProtocolError(f"KEPT of exec {number} before its sandbox's")
            if len(fds) == abi.KEPT_FDS and number not in self.ends:
                log, event, out, err, stdin = fds
                fds[:] = [out, err]  # the warden reads these: a second reader would keep them open
                sandbox.execs.append(KeptExec(number, log, event, stdin, kept.started, kept.started_ns))
                self._lives[number] = outcome
            else:
                sandbox.said = _without_one(sandbox.said)
        self._look()
        return number in self._lives

    def ended(self, number: int, outcome: Outcome) -> bool:
        """An end of somebody that this broker did not start: True where it is held."""
        if not self._listening or number in self.ends:
            return False
        self.ends[number] = outcome
        self._awaited.discard(number)
        self._look()
        return True

    def settle(self) -> list[int]:
        """Everybody has spoken, or had the time to. The sandboxes that did not."""
        self._listening = False
        silent = sorted(
            self._awaited | {number for number, one in self._found.items() if len(one.execs) < one.said.execs}
        )
        self.sandboxes = tuple(
            KeptSandbox(number, one.record, one.ends_ns, one.said.frozen, tuple(one.execs))
            for number, one in sorted(self._found.items())
        )
        self._found.clear()
        return silent

    def adopt(self, number: int) -> Awaitable[Outcome]:
        """See Launcher.adopt."""
        if number in self.ends:
            told: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            told.set_result(self.ends.pop(number))
            return told
        future = self._lives.pop(number, None)
        if future is None:
            raise LookupError(f"nothing of the number {number} was kept")
        return future

    def forget(self) -> None:
        """Ends that nobody asked for; from here on they are nobody's."""
        self._listening = False
        for outcome in self.ends.values():
            outcome.close()
        self.ends.clear()
        self._lives.clear()

    def close(self) -> None:
        """Everything that nobody took."""
        self.forget()
        for one in self._found.values():
            close_all([one.record, *(fd for kept in one.execs for fd in (kept.log, kept.event, kept.stdin))])
        self._found.clear()

    def _look(self) -> None:
        if not self._awaited and all(len(one.execs) >= one.said.execs for one in self._found.values()):
            self.heard.set()
        else:
            self.heard.clear()


def _without_one(said: Kept) -> Kept:
    """A sandbox of whose execs one less is to come."""
    return Kept(said.sandbox, said.kind, said.execs - 1, said.frozen, said.started, said.started_ns, said.wall_left_ns)
