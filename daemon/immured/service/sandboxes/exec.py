"""One exec as the broker knows it: a command in a sandbox that lives. No I/O."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from immured.service.sandboxes.keyboard import Keyboard
    from immured.service.sandboxes.logs import Log
    from immured.wire.messages import Receipt

__all__ = ["Exec", "ExecState", "new_id"]


def new_id() -> str:
    """`e` and 20 hex digits."""
    return "e" + secrets.token_hex(10)


class ExecState(StrEnum):
    """How far an exec has come."""

    PREPARING = "preparing"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(slots=True, eq=False)
class Exec:
    """An exec. `number` is the launcher's name for it; `command` a bounded line for people.

    `kept`: it goes on without its connection, and its output is in `log`. `result` is what its reply says of it.
    """

    number: int
    id: str
    key_id: str
    uid: int
    command: str
    started_ms: int
    kept: bool = False
    terminal: bool = False
    adopted: bool = False
    intent: int | None = None
    enforcement: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, object] | None = None
    """The wire's map: what it has less of than its sandbox."""
    state: ExecState = ExecState.PREPARING
    killed: bool = False
    ended_ms: int | None = None
    result: Mapping[str, object] = field(default_factory=dict)
    log: Log | None = None
    keyboard: Keyboard | None = None
    """What feeds a kept one."""
    attached: int = 0
    """How many read its log just now."""
    forgotten: bool = False
    outcome: Receipt | None = None
    """The entry of its end, once that is durable."""
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def live(self) -> bool:
        """Whether it has, or may have, a process."""
        return self.state is not ExecState.ENDED

    def forget(self) -> None:
        """It is listed no more; its log goes once nobody reads it."""
        self.forgotten = True
        self.let_go_of_log()

    def let_go_of_log(self) -> None:
        """One reader less, or it is over: until then its end is still to be told, however soon it was forgotten."""
        if self.forgotten and not self.attached and not self.live and self.log is not None:
            self.log.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Its log stays meanwhile, whatever else becomes of it."""
        self.attached += 1
        try:
            yield
        finally:
            self.attached -= 1
            self.let_go_of_log()

    def to_map(self) -> dict[str, object]:
        """What `sandbox.execs` shows."""
        shown: dict[str, object] = {
            "exec": self.id,
            "state": self.state.value,
            "key": self.key_id,
            "uid": self.uid,
            "command": self.command,
            "started_ms": self.started_ms,
            "detached": self.kept,
            "terminal": self.terminal,
        }
        if self.ended_ms is not None:
            shown["ended_ms"] = self.ended_ms
        shown |= {name: self.result[name] for name in ("cause", "exit_code", "signal") if name in self.result}
        return shown
