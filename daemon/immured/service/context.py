"""What every command handler may use: the daemon's parts, made by `main` and shared by reference."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from immured.host.facts import HostFacts
from immured.identity.keyring import Keyring
from immured.identity.replay import ReplayRecord
from immured.isolation.abi import Cause
from immured.isolation.filesystem import Grants
from immured.isolation.launcher import Outcome
from immured.ledger import Ledger
from immured.service.misbehaviour import DenialBound, Misbehaviour
from immured.service.registry import Registry
from immured.service.state import State
from immured.service.streams import Feeds

__all__ = ["LauncherPort", "Service", "log", "now_ms"]

log = logging.getLogger("immured")


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class LauncherPort(Protocol):
    """What the service needs of `isolation.launcher.Launcher`."""

    @property
    def facts(self) -> HostFacts:
        """What the host gives."""

    def prepare(
        self,
        run: int,
        connection: int,
        plan: bytes,
        fds: Sequence[int],
        *,
        ours: Sequence[int] = (),
        log: int | None = None,
    ) -> Awaitable[Outcome]:
        """Send a plan, for a cell that waits for `go`; how the run ends. `ours`: which are the broker's own pipes;
        `log`: a learning run's."""

    def go(self, run: int) -> None:
        """The intent is durable."""

    def kill(self, run: int, cause: Cause = ...) -> None:
        """End a run."""


@dataclass(slots=True)
class Service:
    """The daemon's parts. `audiences` are the names that a command may be addressed to."""

    state: State
    keyring: Keyring
    ledger: Ledger
    launcher: LauncherPort
    registry: Registry
    replay: ReplayRecord
    boot: bytes
    audiences: frozenset[str]
    grants: Grants = field(default_factory=Grants)
    feeds: Feeds = field(default_factory=dict)
    misbehaviour: Misbehaviour = field(default_factory=Misbehaviour)
    denials: DenialBound = field(default_factory=DenialBound)
    clock: Callable[[], int] = now_ms
    started_ms: int = field(default_factory=now_ms)
    stopping: bool = False

    @property
    def actor(self) -> Mapping[str, object]:
        """`actor` of the entries that the daemon writes of its own accord."""
        return {"daemon": self.state.key.id}
