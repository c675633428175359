"""A sandbox that lives, and the execs in it, for asyncio: what waits in `sandbox` is awaited here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from signal import SIGKILL
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar, Unpack

from immured.client import sandbox_questions as questions
from immured.client.errors import ConnectionLost, Refusal
from immured.client.retry import Backoff
from immured.client.sandbox import RETRIES
from immured.client.sandbox_questions import Duration, ExecOptions, Terminal
from immured.errors import ImmuredError

if TYPE_CHECKING:
    from signal import Signals

    from immured.client.aio import AsyncClient, AsyncRun
    from immured.client.changes import AsyncChanges
    from immured.client.files import AsyncFiles
    from immured.client.order import Stdin, Text
    from immured.client.outcome import RunResult, Sink
    from immured.client.question import Progress, Question, Taken
    from immured.client.sandbox_facts import ExecFacts, LogPage, SandboxFacts, SandboxStats
    from immured.client.snapshots import Snapshot

__all__ = ["AsyncExec", "AsyncFollowing", "AsyncSandbox"]

T = TypeVar("T")


class AsyncSandbox:
    """`Sandbox` for asyncio.

    async with client.sandbox(limits={"memory": "256M"}) as sandbox:
        await asyncio.gather(*(sandbox.exec(["/bin/true"]) for _ in range(10)))
    """

    def __init__(self, client: AsyncClient, facts: SandboxFacts, *, keep: bool = False) -> None:
        self._client = client
        self.facts = facts
        """As the daemon had it when it was last asked."""
        self.keep = keep

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.keep:
            return
        # What already goes wrong is what the caller wants to hear of.
        with contextlib.suppress(ImmuredError) if kind is not None else contextlib.nullcontext():
            try:
                await self.remove()
            except Refusal as refusal:
                if refusal.code != "not_found":
                    raise

    def __repr__(self) -> str:
        return f"AsyncSandbox({self.facts.name or self.id}, {self.facts.state})"

    @property
    def id(self) -> str:
        return self.facts.id

    @property
    def name(self) -> str | None:
        return self.facts.name

    @property
    def files(self) -> AsyncFiles:
        """Its files."""
        from immured.client.files import AsyncFiles

        return AsyncFiles(self)

    @property
    def changes(self) -> AsyncChanges:
        """What it wrote to captured directories."""
        from immured.client.changes import AsyncChanges

        return AsyncChanges(self)

    async def ask(
        self,
        question: Question[T],
        *,
        sink: Taken | None = None,
        progress: Progress | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the same surface as Sandbox's
        retries: int = 0,
    ) -> T:
        """Asks the daemon, as `Client.ask`."""
        return await self._client.ask(question, sink=sink, progress=progress, timeout=timeout, retries=retries)

    async def exec(
        self,
        argv: Sequence[Text],
        *,
        stream: bool = False,
        on_stdout: Sink | None = None,
        on_stderr: Sink | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the same surface as Sandbox's
        retries: int = 0,
        **options: Unpack[ExecOptions],
    ) -> RunResult:
        """Runs a command here and waits for its end; it ends with the connection. As `Client.run`."""
        streams = stream or on_stdout is not None or on_stderr is not None
        order = questions.exec_order(self.id, argv, stream=streams, **options)
        return await self._client.execute(order, on_stdout, on_stderr, timeout=timeout, retries=retries)

    async def stream(
        self,
        argv: Sequence[Text],
        *,
        terminal: Terminal | None = None,
        **options: Unpack[ExecOptions],
    ) -> AsyncRun:
        """Like `exec`, and gives the output as it comes, as `Client.start` does. With `terminal` it is on one."""
        order = questions.exec_order(self.id, argv, stream=True, terminal=terminal, **options)
        return await self._client.begin(order)

    async def start(
        self, argv: Sequence[Text], *, terminal: Terminal | None = None, **options: Unpack[ExecOptions]
    ) -> AsyncExec:
        """Starts a detached command: it outlives the connection and the daemon, and its output goes to a log."""
        return AsyncExec(self, await self.ask(questions.start(self.id, argv, terminal=terminal, **options)))

    async def python(
        self,
        code: str,
        argv: Sequence[str] = (),
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: bytes = b"",
    ) -> RunResult:
        """As `Sandbox.python`."""
        from immured.client.templates import waiting_order

        return await self._client.execute(waiting_order(self.facts, code, argv, env=env, cwd=cwd, stdin=stdin))

    async def execs(self) -> tuple[ExecFacts, ...]:
        """Those that live, and the last that do not."""
        return await self.ask(questions.execs(self.id))

    def find(self, exec: str) -> AsyncExec:
        """The exec with this id. Nothing is asked yet."""
        return AsyncExec(self, exec)

    async def refresh(self) -> SandboxFacts:
        """Asks anew, and notes it in `facts`."""
        return self._note(await self.ask(questions.show(self.id)))

    async def snapshot(self, name: str, *, retries: int = 0) -> Snapshot:
        """Saves what lies in its own places; `client.sandbox(snapshot=name, ...)` begins with that."""
        from immured.client.snapshots import snapshot_save

        return await self.ask(snapshot_save(self.id, name), retries=retries)

    async def pause(self, *, retries: int = 0) -> SandboxFacts:
        """Freezes every exec; none is taken until `resume`."""
        return self._note(await self.ask(questions.pause(self.id), retries=retries))

    async def resume(self, *, retries: int = 0) -> SandboxFacts:
        return self._note(await self.ask(questions.resume(self.id), retries=retries))

    async def extend(self, ttl: Duration) -> SandboxFacts:
        """Lets it live for `ttl` from now on."""
        return self._note(await self.ask(questions.extend(self.id, ttl)))

    async def stats(self) -> SandboxStats:
        return await self.ask(questions.stats(self.id))

    async def kill(self) -> Mapping[str, object]:
        """Ends it and every exec in it; it stays listed."""
        return await self.ask(questions.kill(self.id))

    async def remove(self) -> Mapping[str, object]:
        """Ends it, where it lives, and lists it no more."""
        return await self.ask(questions.remove(self.id))

    def _note(self, facts: SandboxFacts) -> SandboxFacts:
        self.facts = facts
        return facts


class AsyncExec:
    """A detached exec."""

    def __init__(self, sandbox: AsyncSandbox, id: str) -> None:
        self.sandbox = sandbox
        self.id = id

    def __repr__(self) -> str:
        return f"AsyncExec({self.id} in {self.sandbox.facts.name or self.sandbox.id})"

    async def facts(self) -> ExecFacts | None:
        """As the daemon has it; None where it is listed no more."""
        return next((one for one in await self.sandbox.execs() if one.id == self.id), None)

    async def logs(self, start: int = 0, *, limit: int | None = None) -> LogPage:
        """What its log holds from the offset `start` on. The log is bounded: what it lost is counted."""
        return await self.sandbox.ask(questions.logs(self.sandbox.id, self.id, start, limit))

    def follow(self, start: int = 0, *, retries: int = RETRIES) -> AsyncFollowing:
        """Its output from the offset `start` on, as it comes, to its end; taken up again after a lost connection."""
        return AsyncFollowing(self, start, output=True, retries=retries)

    async def attach(self, stdin: Stdin | None = None, *, start: int = 0) -> AsyncRun:
        """Takes part: gives output as it comes and feeds `stdin`, whose end is the end of its input. Leaving it leaves
        the exec alone."""
        order = questions.attach_order(self.sandbox.id, self.id, start=start, stdin=stdin)
        return await self.sandbox._client.begin(order)  # noqa: SLF001 - one module

    async def signal(self, number: int | Signals | str) -> None:
        """To its first process, or a terminal's foreground group."""
        await self.sandbox.ask(questions.signal(self.sandbox.id, self.id, number))

    async def kill(self) -> None:
        """SIGKILL to its first process: the rest of it ends with that."""
        await self.signal(SIGKILL)

    async def resize(self, rows: int, columns: int) -> None:
        await self.sandbox.ask(questions.resize(self.sandbox.id, self.id, rows, columns))

    async def wait(self, *, retries: int = RETRIES) -> RunResult:
        """How it ended, once it has; asked anew after a lost connection."""
        return await AsyncFollowing(self, 0, output=False, retries=retries).result()


class AsyncFollowing:
    """A log that is followed: iterate it with `async for` for `(stream, data)`, then await `result()`."""

    def __init__(self, exec: AsyncExec, start: int, *, output: bool, retries: int) -> None:
        self._exec = exec
        self._output = output
        self._retries = retries
        self._result: RunResult | None = None
        self.offset = start
        """Behind what was given out last."""

    async def __aiter__(self) -> AsyncIterator[tuple[str, bytes]]:
        backoff = Backoff(self._retries)
        while self._result is None:
            try:
                async with await self._attached() as run:
                    async for piece in run:
                        backoff = Backoff(self._retries)
                        self.offset = self.offset + len(piece[1]) if run.offset is None else run.offset
                        yield piece
                    self._result = await run.result()
            except (ConnectionLost, Refusal) as error:
                await asyncio.sleep(backoff.delay(error, None))

    async def result(self) -> RunResult:
        """How the exec ended; waits for it, and passes over output that was not iterated."""
        async for _ in self:
            pass
        if self._result is None:
            raise ConnectionLost("the log was left before its end", "iterate it to its end")
        return self._result

    async def _attached(self) -> AsyncRun:
        sandbox = self._exec.sandbox
        order = questions.attach_order(sandbox.id, self._exec.id, start=self.offset, output=self._output)
        return await sandbox._client.begin(order)  # noqa: SLF001 - one module
