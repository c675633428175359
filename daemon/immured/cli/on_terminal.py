"""Programs on a terminal of the sandbox's own, with the person's before them: what `shell`, `sandbox exec --tty` and
`sandbox attach` share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn

from immured.cli.exits import explain, status_of
from immured.cli.run import leave
from immured.cli.say import complain, note
from immured.client.sandbox import RETRIES
from immured.client.terminal_session import Left, TerminalSession

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence

    from immured.cli.session import Settled
    from immured.client.aio import AsyncRun
    from immured.client.outcome import RunResult
    from immured.client.terminal import LocalTerminal

__all__ = ["attach_on_terminal", "exit_status", "finish", "run_on_terminal"]


def run_on_terminal(
    settled: Settled, local: LocalTerminal, word: str, argv: Sequence[str], options: Mapping[str, object], escape: bytes
) -> RunResult | Left:
    """A command that ends with its connection, in the sandbox `word`. The terminal is as it was when this returns or
    raises."""

    async def work() -> RunResult:
        async with settled.async_client() as client:
            sandbox = client.at(word)
            async with TerminalSession(local, escape=escape) as session:

                async def begin(keys: AsyncIterator[bytes]) -> AsyncRun:
                    return await sandbox.stream(list(argv), terminal=local.shape, stdin=keys, **options)  # type: ignore[arg-type]

                return await session.run(begin, sandbox)

    return _settled(local, work)


def attach_on_terminal(
    settled: Settled, local: LocalTerminal, word: str, exec: str, start: int, escape: bytes
) -> RunResult | Left:
    """A detached exec that has a terminal. Who leaves, leaves it running."""

    async def work() -> RunResult:
        async with settled.async_client() as client:
            sandbox = client.at(word)
            async with TerminalSession(local, escape=escape) as session:
                return await session.attach(sandbox.find(exec), start, retries=RETRIES)

    return _settled(local, work)


def _settled(local: LocalTerminal, work: Callable[[], Coroutine[None, None, RunResult]]) -> RunResult | Left:
    try:
        return asyncio.run(work())
    except Left as left:
        return left
    finally:
        local.close()


def finish(result: RunResult | Left, *, left_running: str | None = None) -> NoReturn:
    """Say what the exit status cannot, and exit as `immure run` would."""
    if isinstance(result, Left):
        if left_running is not None:
            note(f"{left_running} goes on: immure sandbox attach")
        leave(0 if result.number is None else 128 + result.number)
    if result.failure is not None:
        said = result.failure
        complain(str(said.get("code", "setup_failed")), str(said.get("message", "")), str(said.get("remedy", "")))
    elif ended := explain(result.cause):
        complain(result.cause, *ended)
    leave(exit_status(result))


def exit_status(result: RunResult) -> int:
    """As `immure run` has it."""
    failure = None if result.failure is None else str(result.failure.get("code", ""))
    return status_of(result.cause, result.exit_code, result.signal, failure)
