"""What sandboxes need of `isolation.launcher.Launcher`."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Sequence
from typing import Protocol

from immured.isolation.abi import Cause, Clerk
from immured.isolation.launcher_runs import Creation, KeptFds, KeptSandbox, Outcome, Pinned
from immured.isolation.messages import Measures

__all__ = ["SandboxPort"]


class SandboxPort(Protocol):
    """The launcher, as far as sandboxes go. What is awaited raises LookupError once the sandbox or exec is over, and
    everything LauncherLostError."""

    @property
    def kept(self) -> Sequence[KeptSandbox]:
        """What lived on from before this broker. Whoever takes it owns its descriptors."""

    @property
    def told(self) -> frozenset[int]:
        """Numbers of those that ended while there was no broker: `adopt` answers at once."""

    def adopted_all(self) -> None:
        """Nobody else is adopted."""

    def new_number(self) -> int:
        """A name for a run, a sandbox or an exec that none had before."""

    def create(self, number: int, connection: int, plan: bytes, record_fd: int) -> Creation:
        """Make a sandbox; its record is only borrowed."""

    def adopt(self, number: int) -> Awaitable[Outcome]:
        """How one that was kept ends, a sandbox or an exec."""

    def exec(
        self,
        number: int,
        sandbox: int,
        plan: bytes,
        fds: Sequence[int],
        *,
        ours: Sequence[int] = (),
        log: int | None = None,
        kept: KeptFds | None = None,
    ) -> Awaitable[Outcome]:
        """Send an exec's plan, for a process that waits for `go`; how it ends."""

    def pinned(self, run: int) -> Awaitable[Pinned | None]:
        """What a run or an exec that was just sent, whose plan has a PIN, is about to execute; None where it ended
        before. Its descriptors are the receiver's to close."""

    def go(self, run: int) -> None:
        """The intent is durable."""

    def terminal(self, number: int) -> Awaitable[int]:
        """The master of an exec's terminal, the receiver's to close."""

    def signal(self, number: int, signo: int, everybody: bool = ...) -> None:
        """Send an exec a signal."""

    def resize(self, number: int, rows: int, columns: int) -> None:
        """Change the size of an exec's terminal."""

    def close_stdin(self, number: int) -> None:
        """Nobody feeds a kept exec any more."""

    def freeze(self, sandbox: int, on: bool) -> Awaitable[None]:
        """Stop every exec, or let them go on. Raises OSError."""

    def extend(self, sandbox: int, ns: int) -> None:
        """So long it lives from now on."""

    def measure(self, sandbox: int) -> Awaitable[Measures]:
        """Its figures."""

    def ask(self, sandbox: int, clerk: Clerk, connection: int) -> socket.socket:
        """Our end of a SEQPACKET pair, whose other end a clerk of that sandbox will serve. Raises OSError."""

    def kill(self, run: int, cause: Cause = ...) -> None:
        """End a sandbox, or an exec."""
