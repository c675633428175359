"""A sandbox that lives, and the execs in it: the blocking objects over `sandbox_questions`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from signal import SIGKILL
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar, Unpack

from immured.client import sandbox_questions as questions
from immured.client.errors import ConnectionLost, Refusal
from immured.client.retry import Backoff
from immured.client.sandbox_questions import Duration, ExecOptions, Terminal
from immured.errors import ImmuredError

if TYPE_CHECKING:
    from signal import Signals

    from immured.client.changes import Changes
    from immured.client.files import Files
    from immured.client.order import Stdin, Text
    from immured.client.outcome import RunResult, Sink
    from immured.client.question import Progress, Question, Taken
    from immured.client.sandbox_facts import ExecFacts, LogPage, SandboxFacts, SandboxStats
    from immured.client.snapshots import Snapshot
    from immured.client.sync import Client, Run

__all__ = ["Exec", "Following", "Sandbox"]

T = TypeVar("T")

RETRIES = 40
"""How often a log is taken up again after a lost connection: for half a minute, and anew after each byte."""


class Sandbox:
    """One sandbox of the daemon's. As a context manager it is ended and removed when left, unless `keep`.

    with client.sandbox(limits={"memory": "256M"}) as sandbox:
        sandbox.exec(["/bin/sh", "-c", "echo hello > /tmp/x"])
        print(sandbox.exec(["/bin/cat", "/tmp/x"]).stdout)

    While somebody pauses, resumes or saves it, others who would are refused (`busy`), and so are execs: `retries`, as
    in `Client.run`, has them try again.
    """

    def __init__(self, client: Client, facts: SandboxFacts, *, keep: bool = False) -> None:
        self._client = client
        self.facts = facts
        """As the daemon had it when it was last asked."""
        self.keep = keep

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.keep:
            return
        # What already goes wrong is what the caller wants to hear of.
        with contextlib.suppress(ImmuredError) if kind is not None else contextlib.nullcontext():
            try:
                self.remove()
            except Refusal as refusal:
                if refusal.code != "not_found":
                    raise

    def __repr__(self) -> str:
        return f"Sandbox({self.facts.name or self.id}, {self.facts.state})"

    @property
    def id(self) -> str:
        return self.facts.id

    @property
    def name(self) -> str | None:
        return self.facts.name

    @property
    def files(self) -> Files:
        """Its files."""
        from immured.client.files import Files

        return Files(self)

    @property
    def changes(self) -> Changes:
        """What it wrote to captured directories."""
        from immured.client.changes import Changes

        return Changes(self)

    def ask(
        self,
        question: Question[T],
        *,
        sink: Taken | None = None,
        progress: Progress | None = None,
        timeout: float | None = None,
        retries: int = 0,
    ) -> T:
        """Asks the daemon, as `Client.ask`."""
        return self._client.ask(question, sink=sink, progress=progress, timeout=timeout, retries=retries)

    def exec(
        self,
        argv: Sequence[Text],
        *,
        stream: bool = False,
        on_stdout: Sink | None = None,
        on_stderr: Sink | None = None,
        timeout: float | None = None,
        retries: int = 0,
        **options: Unpack[ExecOptions],
    ) -> RunResult:
        """Runs a command here and waits for its end; it ends with the connection. As `Client.run`."""
        streams = stream or on_stdout is not None or on_stderr is not None
        order = questions.exec_order(self.id, argv, stream=streams, **options)
        return self._client.execute(order, on_stdout, on_stderr, timeout=timeout, retries=retries)

    def stream(
        self,
        argv: Sequence[Text],
        *,
        terminal: Terminal | None = None,
        timeout: float | None = None,
        **options: Unpack[ExecOptions],
    ) -> Run:
        """Like `exec`, and gives the output as it comes, as `Client.start` does. With `terminal` it is on one."""
        order = questions.exec_order(self.id, argv, stream=True, terminal=terminal, **options)
        return self._client.begin(order, timeout=timeout)

    def start(self, argv: Sequence[Text], *, terminal: Terminal | None = None, **options: Unpack[ExecOptions]) -> Exec:
        """Starts a detached command: it outlives the connection and the daemon, and its output goes to a log."""
        return Exec(self, self.ask(questions.start(self.id, argv, terminal=terminal, **options)))

    def python(
        self,
        code: str,
        argv: Sequence[str] = (),
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: bytes = b"",
        timeout: float | None = None,
    ) -> RunResult:
        """Has the interpreter that waits in a template's sandbox run `code`, once, as `python3 -c` would; waits for its
        end."""
        from immured.client.templates import waiting_order

        order = waiting_order(self.facts, code, argv, env=env, cwd=cwd, stdin=stdin)
        return self._client.execute(order, timeout=timeout)

    def execs(self) -> tuple[ExecFacts, ...]:
        """Those that live, and the last that do not."""
        return self.ask(questions.execs(self.id))

    def find(self, exec: str) -> Exec:
        """The exec with this id. Nothing is asked yet."""
        return Exec(self, exec)

    def refresh(self) -> SandboxFacts:
        """Asks anew, and notes it in `facts`."""
        return self._note(self.ask(questions.show(self.id)))

    def snapshot(self, name: str, *, retries: int = 0) -> Snapshot:
        """Saves what lies in its own places; `client.sandbox(snapshot=name, ...)` begins with that."""
        from immured.client.snapshots import snapshot_save

        return self.ask(snapshot_save(self.id, name), retries=retries)

    def pause(self, *, retries: int = 0) -> SandboxFacts:
        """Freezes every exec; none is taken until `resume`."""
        return self._note(self.ask(questions.pause(self.id), retries=retries))

    def resume(self, *, retries: int = 0) -> SandboxFacts:
        return self._note(self.ask(questions.resume(self.id), retries=retries))

    def extend(self, ttl: Duration) -> SandboxFacts:
        """Lets it live for `ttl` from now on."""
        return self._note(self.ask(questions.extend(self.id, ttl)))

    def stats(self) -> SandboxStats:
        return self.ask(questions.stats(self.id))

    def kill(self) -> Mapping[str, object]:
        """Ends it and every exec in it; it stays listed."""
        return self.ask(questions.kill(self.id))

    def remove(self) -> Mapping[str, object]:
        """Ends it, where it lives, and lists it no more."""
        return self.ask(questions.remove(self.id))

    def _note(self, facts: SandboxFacts) -> SandboxFacts:
        self.facts = facts
        return facts


class Exec:
    """A detached exec."""

    def __init__(self, sandbox: Sandbox, id: str) -> None:
        self.sandbox = sandbox
        self.id = id

    def __repr__(self) -> str:
        return f"Exec({self.id} in {self.sandbox.facts.name or self.sandbox.id})"

    def facts(self) -> ExecFacts | None:
        """As the daemon has it; None where it is listed no more."""
        return next((one for one in self.sandbox.execs() if one.id == self.id), None)

    def logs(self, start: int = 0, *, limit: int | None = None) -> LogPage:
        """What its log holds from the offset `start` on. The log is bounded: what it lost is counted."""
        return self.sandbox.ask(questions.logs(self.sandbox.id, self.id, start, limit))

    def follow(self, start: int = 0, *, retries: int = RETRIES) -> Following:
        """Its output from the offset `start` on, as it comes, to its end; taken up again after a lost connection."""
        return Following(self, start, output=True, retries=retries)

    def attach(self, stdin: Stdin | None = None, *, start: int = 0, timeout: float | None = None) -> Run:
        """Takes part: gives output as it comes and feeds `stdin`, whose end is the end of its input. Leaving it leaves
        the exec alone."""
        order = questions.attach_order(self.sandbox.id, self.id, start=start, stdin=stdin)
        return self.sandbox._client.begin(order, timeout=timeout)  # noqa: SLF001 - one module

    def signal(self, number: int | Signals | str) -> None:
        """To its first process, or a terminal's foreground group."""
        self.sandbox.ask(questions.signal(self.sandbox.id, self.id, number))

    def kill(self) -> None:
        """SIGKILL to its first process: the rest of it ends with that."""
        self.signal(SIGKILL)

    def resize(self, rows: int, columns: int) -> None:
        self.sandbox.ask(questions.resize(self.sandbox.id, self.id, rows, columns))

    def wait(self, *, retries: int = RETRIES) -> RunResult:
        """How it ended, once it has; asked anew after a lost connection."""
        return Following(self, 0, output=False, retries=retries).result


class Following:
    """A log that is followed: iterate it for `(stream, data)`, then read `result`."""

    def __init__(self, exec: Exec, start: int, *, output: bool, retries: int) -> None:
        self._exec = exec
        self._output = output
        self._retries = retries
        self._result: RunResult | None = None
        self.offset = start
        """Behind what was given out last."""

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        backoff = Backoff(self._retries)
        while self._result is None:
            try:
                with self._attached() as run:
                    for piece in run:
                        backoff = Backoff(self._retries)
                        self.offset = self.offset + len(piece[1]) if run.offset is None else run.offset
                        yield piece
                    self._result = run.result
            except (ConnectionLost, Refusal) as error:
                time.sleep(backoff.delay(error, None))

    @property
    def result(self) -> RunResult:
        """How the exec ended; waits for it, and passes over output that was not iterated."""
        for _ in self:
            pass
        if self._result is None:
            raise ConnectionLost("the log was left before its end", "iterate it to its end")
        return self._result

    def _attached(self) -> Run:
        sandbox = self._exec.sandbox
        order = questions.attach_order(sandbox.id, self._exec.id, start=self.offset, output=self._output)
        return sandbox._client.begin(order)  # noqa: SLF001 - one module
