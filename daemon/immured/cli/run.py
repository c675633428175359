"""`immure run`: a command in a sandbox, as if it ran here: its input, its output, its exit status."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections import Counter
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from immured.cli.app import usage_remedy
from immured.cli.exits import REFUSED, explain, status_of
from immured.cli.flags import Flags, Order, compile_order, run_options
from immured.cli.paths import prepare_writable
from immured.cli.say import complain, json_text, note
from immured.cli.session import connect
from immured.cli.target import connection_options
from immured.errors import ImmuredError
from immured.wire.messages import MAX_CAPTURE

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from immured.client import Client, RunResult

__all__ = ["run", "violation_lines"]

SHOWN_VIOLATIONS = 8
CONTROLLED = frozenset({"memory", "cpus", "pids"})
"""Limits whose full means is a cgroup controller."""


class Running(click.Command):
    """Whatever keeps the command from running is exit status 125, as the contract says; a usage error too."""

    def make_context(self, *arguments: Any, **keywords: Any) -> click.Context:
        try:
            return super().make_context(*arguments, **keywords)
        except click.UsageError as error:
            complain("usage", error.format_message(), usage_remedy(error))
            raise click.exceptions.Exit(REFUSED) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ImmuredError as error:
            if error.code == "proposed":
                raise
            _say_why(error.code, error.message, error.remedy)
        except BrokenPipeError:
            raise
        except OSError as error:
            _say_why("input_output", f"our own input or output: {error.strerror}", "look where it is redirected to")
        raise click.exceptions.Exit(REFUSED)


@click.command(cls=Running, context_settings={"allow_interspersed_args": False})
@click.argument("command", metavar="-- CMD...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--json", "as_json", is_flag=True, help="Print the result record instead of the output.")
@click.option("-q", "--quiet", is_flag=True, help="No notes.")
@run_options
@connection_options
def run(
    command: tuple[str, ...], as_json: bool, quiet: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
    **options: Any,
) -> None:  # fmt: skip
    """Run a command in a sandbox.

    Standard input, output and error are the command's. It sees the host's programs and nothing else, unless --ro and
    --rw say so, and reaches no network.

    Exits as the command did; 128+n for a signal; 124 when it ran past its time; 137 when it was killed for another
    reason; 125 when it did not run; 126 cannot be executed; 127 not found.

    \b
      immure run -- python3 -c 'print(6 * 7)'
      immure run --ro . --rw out -- python3 app.py
      immure run --memory 512M --cpus 1.5 --wall 60s --ro . -- make test
    """
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        order = compile_order(Flags(**options), Path.cwd())
        for bound in order.writable:
            if prepare_writable(bound) and not quiet:
                note(f"made {bound.source}")
        ended_by_us()
        result = captured(client, command, order) if as_json else passed_through(client, command, order)
    if as_json:
        click.echo(json_text(record(result)))
    else:
        _explain(result, Flags(**options), quiet)
    leave(status_of(result.cause, result.exit_code, result.signal, _failure(result)))


def passed_through(client: Client, command: tuple[str, ...], order: Order) -> RunResult:
    """Run with our own stdin, stdout and stderr."""
    return client.run(
        list(command), manifest=order.manifest, parameters=order.parameters or None, env=order.env or None,
        cwd=order.cwd, limits=order.limits or None,
        stdin=standard_input(), on_stdout=writer(1), on_stderr=writer(2),
    )  # fmt: skip


def captured(client: Client, command: tuple[str, ...], order: Order) -> RunResult:
    """Run with our stdin; the beginning of the output is kept, its length and digest are in the result."""
    kept = {"stdout": bytearray(), "stderr": bytearray()}
    result = client.run(
        list(command), manifest=order.manifest, parameters=order.parameters or None, env=order.env or None,
        cwd=order.cwd, limits=order.limits or None,
        stdin=standard_input(), on_stdout=keeper(kept["stdout"]), on_stderr=keeper(kept["stderr"]),
    )  # fmt: skip
    return replace(result, stdout=bytes(kept["stdout"]), stderr=bytes(kept["stderr"]))


def standard_input() -> FileIO | bytes:
    """Descriptor 0, unbuffered, so that a terminal's line is passed on when it is there; nothing when it is closed."""
    try:
        return FileIO(0, closefd=False)
    except OSError:
        return b""


def keeper(kept: bytearray) -> Callable[[bytes], None]:
    """Keeps as much as a reply that was not streamed would hold."""

    def keep(data: bytes) -> None:
        kept.extend(data[: max(0, MAX_CAPTURE - len(kept))])

    return keep


def writer(descriptor: int) -> Callable[[bytes], None]:
    """Writes all that it is given, unbuffered."""

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(descriptor, view) :]
            except BlockingIOError:  # whoever shares the pipe or terminal with us made it so
                select.select((), (descriptor,), ())

    return write


def ended_by_us() -> None:
    """SIGTERM and SIGHUP end us as Ctrl-C does: the connection closes, and with it the run."""

    def stop(number: int, _frame: FrameType | None) -> None:
        leave(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup, and a shell's background
            signal.signal(number, stop)


def leave(status: int) -> NoReturn:
    """Exit at once: a thread may still wait for a terminal's next line, and nobody wants it any more."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, AttributeError):  # gone, or closed before we began
            stream.flush()
    os._exit(status)


def record(result: RunResult) -> dict[str, object]:
    """What --json prints: the result as it was signed, its output, and where the ledger holds it."""
    return {
        **result.raw,
        "stdout": result.stdout,
        "stderr": result.stderr,
        "receipt": result.receipt.to_map(),
        "intent": result.intent.to_map(),
    }


def _say_why(code: str, message: str, remedy: str) -> None:
    """Says what kept the command from running, where it can be said: the exit status holds all the same."""
    try:
        complain(code, message, remedy)
    except BrokenPipeError:
        raise
    except OSError:
        return


def _failure(result: RunResult) -> str | None:
    return None if result.failure is None else str(result.failure.get("code", ""))


def violation_lines(result: RunResult) -> list[str]:
    """What the walls refused, a line each; the last says what is left out. They may be why the command failed."""
    lines = []
    for one in result.violations[:SHOWN_VIOLATIONS]:
        what = one.path or one.address or ""
        shown = what.decode(errors="backslashreplace") if isinstance(what, bytes) else what
        lines.append(f"refused: {one.syscall} {shown}".rstrip() + f" ({one.rule})")
    named = Counter(one.kind for one in result.violations)
    total = sum({**named, **result.violation_counts}.values())
    if total > len(lines):
        lines.append(f"refused: {total - len(lines)} more (--json has up to 64)")
    return lines


def _explain(result: RunResult, flags: Flags, quiet: bool) -> None:
    """Say what the exit status cannot: why it did not run, what of ours ended it, which limit is held how."""
    if result.failure is not None:
        said = result.failure
        complain(str(said.get("code", "setup_failed")), str(said.get("message", "")), str(said.get("remedy", "")))
    elif ended := explain(result.cause):
        complain(result.cause, *ended)
    if not result.ok and not quiet:
        for line in violation_lines(result):
            note(line)
    weaker = [
        f"{limit} by {result.enforcement[limit]}"
        for limit in flags.limits()
        if limit in CONTROLLED and not result.enforcement.get(limit, "cgroup").startswith("cgroup")
    ]
    if weaker and not quiet:
        note(f"this host holds limits by weaker means (immure doctor): {'; '.join(weaker)}")
