"""Every command about a sandbox, as values: what is sent, and what its answer comes to. Both clients ask these."""

from __future__ import annotations

import signal as signals
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypedDict, TypeVar, Unpack

from immured.client.order import Bytes, HasFileno, Order, Parameter, RunOptions, Stdin, Text, arguments
from immured.client.outcome import Answer
from immured.client.question import Question, reading
from immured.client.sandbox_facts import ExecFacts, LogPage, SandboxFacts, SandboxStats, log_page, stats_of
from immured.manifest.units import duration_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "CreateOptions",
    "Duration",
    "ExecOptions",
    "Terminal",
    "attach_order",
    "create",
    "exec_order",
    "execs",
    "extend",
    "kill",
    "logs",
    "milliseconds",
    "page",
    "pause",
    "prune",
    "remove",
    "resize",
    "resume",
    "show",
    "signal",
    "start",
    "stats",
]

T = TypeVar("T")

Duration = float | str
"""Seconds, or as a manifest writes it: `90`, `1.5`, `"30m"`."""


@dataclass(frozen=True, slots=True)
class Terminal:
    """A terminal of the sandbox's own for an exec. `term` becomes TERM."""

    rows: int = 24
    columns: int = 80
    term: str = "xterm"

    def to_map(self) -> dict[str, object]:
        return {"rows": self.rows, "columns": self.columns, "term": self.term}


class CreateOptions(TypedDict, total=False):
    """What a sandbox is made with; None is the same as leaving it out."""

    manifest: str | Mapping[str, object] | None
    """A loaded manifest's `sha256:<hex>`, or an inline map; else the daemon's default."""
    parameters: Mapping[str, Parameter] | None
    """What is filled into the manifest, by its parameters' names."""
    name: str | None
    """Unique among the tenant's."""
    labels: Mapping[str, str] | None
    ttl: Duration | None
    """How long it lives at most; else the daemon's default."""
    limits: Mapping[str, object] | None
    """Of all its execs together, only tighter than the manifest's."""
    env: Mapping[str, Text] | None
    """For every exec, unless it says otherwise; `cwd` likewise."""
    cwd: Text | None
    files: Mapping[str, Bytes] | None
    restart: str | None
    """What becomes of it when the daemon dies: `adopt` or `end`; else the daemon's default."""
    snapshot: str | None
    template: str | None


class ExecOptions(TypedDict, total=False):
    """What an exec takes besides argv; as RunOptions has them. None is the same as leaving it out."""

    stdin: Stdin | None
    env: Mapping[str, Text] | None
    cwd: Text | None
    limits: Mapping[str, object] | None
    """Of this exec alone, within the sandbox's."""
    files: Mapping[str, Bytes] | None
    collect: Sequence[Text] | None
    fds: Mapping[int, int | HasFileno] | None


def milliseconds(duration: Duration) -> int:
    """Raises ValueError for what is no duration."""
    if isinstance(duration, str):
        return -(-duration_of(duration) // 1_000_000)
    return round(duration * 1000)


def create(*, count: int | None = None, **options: Unpack[CreateOptions]) -> Question[tuple[SandboxFacts, ...]]:
    """`count` of them, all alike. A name goes with one alone."""
    common = ("manifest", "parameters", "limits", "env", "cwd", "files")
    shared = RunOptions(**{name: options[name] for name in common if name in options})  # type: ignore[typeddict-item, literal-required]
    args = {name: value for name, value in arguments((), **shared).args.items() if name != "argv"}
    for name in ("name", "labels", "restart", "snapshot", "template"):
        value = options.get(name)
        if value is not None:
            args[name] = dict(value) if isinstance(value, Mapping) else value
    ttl = options.get("ttl")
    if ttl is not None:
        args["ttl_ms"] = milliseconds(ttl)
    if count is not None:
        args["count"] = count
    return Question("sandbox.create", args, _rows)


def page(
    *, labels: Mapping[str, str] | None = None, state: str | None = None, after: str | None = None
) -> Question[tuple[tuple[SandboxFacts, ...], str | None]]:
    """Some of the caller's sandboxes, and the `after` of the next page (None: that was the last)."""
    args: dict[str, object] = {}
    if labels:
        args["labels"] = dict(labels)
    if state is not None:
        args["state"] = state
    if after is not None:
        args["after"] = after
    return Question("sandbox.list", args, lambda said: (_rows(said), reading(said).optional("next", str)))


def show(sandbox: str) -> Question[SandboxFacts]:
    return _of("show", sandbox, _row)


def pause(sandbox: str) -> Question[SandboxFacts]:
    return _of("pause", sandbox, _row)


def resume(sandbox: str) -> Question[SandboxFacts]:
    return _of("resume", sandbox, _row)


def extend(sandbox: str, ttl: Duration) -> Question[SandboxFacts]:
    """To live for `ttl` from now on."""
    return _of("extend", sandbox, _row, ttl_ms=milliseconds(ttl))


def kill(sandbox: str) -> Question[Mapping[str, object]]:
    return _of("kill", sandbox, _result)


def remove(sandbox: str) -> Question[Mapping[str, object]]:
    return _of("remove", sandbox, _result)


def prune(*, alive: bool = False, labels: Mapping[str, str] | None = None) -> Question[tuple[str, ...]]:
    """The ids of those that are listed no more: that were over, and with `alive` those that lived."""
    args: dict[str, object] = {"labels": dict(labels)} if labels else {}
    if alive:
        args["alive"] = True
    return Question("sandbox.prune", args, _removed)


def stats(sandbox: str) -> Question[SandboxStats]:
    return _of("stats", sandbox, lambda said: stats_of(said.result))


def execs(sandbox: str) -> Question[tuple[ExecFacts, ...]]:
    return _of(
        "execs", sandbox, lambda said: tuple(ExecFacts.of(row) for row in reading(said).optional("execs", list) or ())
    )


def signal(sandbox: str, exec: str, number: int | signals.Signals | str) -> Question[Mapping[str, object]]:
    """`number`: also a name, with or without SIG. Raises ValueError for a name that there is not."""
    return _of("signal", sandbox, _result, exec=exec, signal=_number(number))


def resize(sandbox: str, exec: str, rows: int, columns: int) -> Question[Mapping[str, object]]:
    return _of("resize", sandbox, _result, exec=exec, rows=rows, columns=columns)


def logs(sandbox: str, exec: str, start: int = 0, limit: int | None = None) -> Question[LogPage]:
    """From the offset `start` on, at most `limit` bytes of output."""
    bound = {} if limit is None else {"limit": limit}
    return _of("logs", sandbox, lambda said: log_page(said.result), exec=exec, **{"from": start}, **bound)


def start(
    sandbox: str, argv: Sequence[Text], *, terminal: Terminal | None = None, **options: Unpack[ExecOptions]
) -> Question[str]:
    """A detached exec; its id. Its input is `attach`'s to feed, or in the command: bytes that a frame holds."""
    stdin = options.get("stdin")
    if stdin is not None and not isinstance(stdin, bytes | bytearray | memoryview):
        raise TypeError("a detached exec's stdin is bytes; attach to feed it more")
    order = exec_order(sandbox, argv, terminal=terminal, **options)
    if order.source:
        raise ValueError(f"{len(stdin or b'')} bytes of stdin do not fit the command; attach to feed them")
    args = {name: value for name, value in order.args.items() if name != "stream"} | {"detach": True}
    return Question(order.cmd, args, lambda said: reading(said).required("exec", str), order.fds)


def exec_order(
    sandbox: str,
    argv: Sequence[Text],
    *,
    stream: bool = False,
    terminal: Terminal | None = None,
    **options: Unpack[ExecOptions],
) -> Order:
    """An exec that ends with its connection. With a terminal all of its output is `stdout`."""
    order = arguments(argv, stream=stream or terminal is not None, **options)
    args = {"sandbox": sandbox, **order.args}
    if terminal is None:
        return replace(order, cmd="sandbox.exec", args=args)
    return replace(
        order, cmd="sandbox.exec", args=args | {"terminal": terminal.to_map()}, streamed=frozenset({"stdout"})
    )


def attach_order(sandbox: str, exec: str, *, start: int = 0, stdin: Stdin | None = None, output: bool = True) -> Order:
    """To a detached exec: its output from the offset `start` on, and `stdin` for its input. It ends with the exec."""
    args: dict[str, object] = {"sandbox": sandbox, "exec": exec}
    if start:
        args["from"] = start
    if stdin is not None:
        args["input"] = True
    if not output:
        args["output"] = False
    streamed = frozenset({"stdout", "stderr"}) if output else frozenset[str]()
    return Order(args, (), stdin, streamed, "sandbox.attach")


def _of(verb: str, sandbox: str, read: Callable[[Answer], T], **args: object) -> Question[T]:
    return Question(f"sandbox.{verb}", {"sandbox": sandbox, **args}, read)


def _result(said: Answer) -> Mapping[str, object]:
    return said.result


def _row(said: Answer) -> SandboxFacts:
    return SandboxFacts.of(said.result)


def _rows(said: Answer) -> tuple[SandboxFacts, ...]:
    return tuple(SandboxFacts.of(row) for row in reading(said).required("sandboxes", list))


def _removed(said: Answer) -> tuple[str, ...]:
    return tuple(str(one) for one in reading(said).required("removed", list))


def _number(wanted: int | str) -> int:
    if isinstance(wanted, int):
        return int(wanted)
    if wanted.isdecimal():
        return int(wanted)
    name = wanted.upper()
    try:
        return int(signals.Signals[name if name.startswith("SIG") else f"SIG{name}"])
    except KeyError:
        raise ValueError(f"there is no signal {wanted}") from None
