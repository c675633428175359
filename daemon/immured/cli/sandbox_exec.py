"""`immure sandbox exec` and `attach`: commands in a sandbox that lives, as if they ran here."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from immured.cli.flags import variables
from immured.cli.on_terminal import attach_on_terminal, exit_status, finish, run_on_terminal
from immured.cli.run import Running, ended_by_us, keeper, leave, record, standard_input, writer
from immured.cli.sandbox_look import pick_exec
from immured.cli.sandbox_words import by_shell, escape_option
from immured.cli.say import json_text, printable
from immured.cli.session import connect, prepare
from immured.cli.target import connection_options
from immured.client.sandbox_questions import Terminal
from immured.client.terminal import LocalTerminal

if TYPE_CHECKING:
    from immured.client import RunResult, Sandbox
    from immured.client.sandbox_questions import ExecOptions

__all__ = ["attach", "execute"]


class InSandbox(Running):
    """Options stand before SANDBOX or, where a `--` ends them, behind it; else all behind it is the command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            ctx.allow_interspersed_args = self._options_until(ctx, args[: args.index("--")])
        return super().parse_args(ctx, args)

    def _options_until(self, ctx: click.Context, words: list[str]) -> bool:
        """Whether these words are options and SANDBOX, and nothing of a command."""
        parser = self.make_parser(ctx)
        parser.allow_interspersed_args = True
        try:
            said, _, _ = parser.parse_args(list(words))
        except click.UsageError:
            return False
        command = said.get("command")  # a tuple, or a mark of click's where there is none
        return isinstance(said.get("sandbox"), str) and not (isinstance(command, tuple) and command)


@click.command("exec", cls=InSandbox, context_settings={"allow_interspersed_args": False})
@click.argument("sandbox")
@click.argument("command", metavar="-- CMD...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("-t", "--tty", is_flag=True, help="On a terminal of its own, with this one before it.")
@click.option("-d", "--detach", is_flag=True, help="Print its id and go; its output goes to a log.")
@click.option("--shell", metavar="SHELL", help="CMD is a line for this shell; further words are its $1, $2, ...")
@click.option("--env", metavar="K[=V]", multiple=True, help="Set a variable; without =V, pass yours on.")
@click.option("--cwd", metavar="DIR", help="Where it starts: a path inside, from / on.")
@click.option("--output", metavar="SIZE", help="How much it may write to stdout and stderr together.")
@click.option("--cpu-time", metavar="TIME", help="Processor time of all its processes.")
@click.option("--wall", metavar="TIME", help="How long it may take: 500ms, 60s, 1.5h.")
@click.option("--pids", metavar="N", type=click.IntRange(1), help="How many tasks at once, as the sandbox's at most.")
@click.option("--memory", metavar="SIZE", help="How much memory, as the sandbox's at most: 512M.")
@click.option("--json", "as_json", is_flag=True, help="Print the result record instead of the output.")
@escape_option
@connection_options
def execute(
    sandbox: str, command: tuple[str, ...], tty: bool, detach: bool, shell: str | None, as_json: bool, escape: bytes,
    env: tuple[str, ...], cwd: str | None,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
    **limits: Any,
) -> None:  # fmt: skip
    """Run a command in a sandbox that lives.

    Standard input, output and error are the command's, and its exit status is ours, as with `immure run`. It ends with
    this connection, unless it is detached.

    \b
      immure sandbox exec dev -- make test
      immure sandbox exec dev --shell /bin/bash -- 'for f in *; do wc -l "$f"; done'
      id=$(immure sandbox exec dev --detach -- python3 -m http.server)
    """
    argv = by_shell(shell, _behind_separator(command))
    options: ExecOptions = {
        "env": variables(env) or None, "cwd": cwd,
        "limits": {name: value for name, value in limits.items() if value is not None} or None,
    }  # fmt: skip
    if tty and not detach:
        if as_json:
            raise click.UsageError("--json would stand in the middle of what is shown: leave out --tty or --json")
        local = LocalTerminal()
        try:
            settled = prepare(socket, key_file, daemon_key, state, as_user)
        except BaseException:
            local.close()
            raise
        finish(run_on_terminal(settled, local, sandbox, argv, options, escape))
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        opened = client.at(sandbox)
        if detach:
            started = opened.start(argv, terminal=_terminal() if tty else None, **options)
            click.echo(json_text({"sandbox": sandbox, "exec": started.id}) if as_json else printable(started.id))
            return
        ended_by_us()
        result = _captured(opened, argv, options) if as_json else _passed(opened, argv, options)
    if as_json:
        click.echo(json_text(record(result)))
        leave(exit_status(result))
    finish(result)


def _behind_separator(words: tuple[str, ...]) -> tuple[str, ...]:
    """Without the `--` between SANDBOX and CMD, which click leaves there. Raises UsageError where nothing follows."""
    command = words[1:] if words[0] == "--" else words
    if not command:
        raise click.UsageError("Missing argument '-- CMD...'.", click.get_current_context())
    return command


@click.command(cls=Running)
@click.argument("sandbox")
@click.argument("exec", required=False)
@click.option("--from", "start", metavar="N", type=click.IntRange(0), default=0, help="From this byte of output on.")
@click.option("--no-input", is_flag=True, help="Take no part: our standard input is not read.")
@escape_option
@connection_options
def attach(
    sandbox: str, exec: str | None, start: int, no_input: bool, escape: bytes,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Take part in a detached exec: its output, our input, until it ends; its exit status is ours.

    Without EXEC, the one that was started last. Who leaves (Ctrl-C; on a terminal ~.) leaves it running. Its output is
    taken up again after a lost connection.
    """
    tty = not no_input and sys.stdin.isatty() and sys.stdout.isatty()
    local = LocalTerminal() if tty else None
    try:
        settled = prepare(socket, key_file, daemon_key, state, as_user)
        with settled.client() as client:
            opened = client.at(sandbox)
            known = {one.id: one for one in opened.execs()}
            chosen = pick_exec(opened, exec)
            on_terminal = chosen in known and known[chosen].terminal
            if local is None or not on_terminal:
                if local is not None:
                    local.close()
                ended_by_us()
                over = chosen in known and not known[chosen].live
                finish(_attached(opened, chosen, start, feed=not (no_input or over)))
    except BaseException:
        if local is not None:
            local.close()
        raise
    finish(attach_on_terminal(settled, local, sandbox, chosen, start, escape), left_running=chosen)


def _attached(sandbox: Sandbox, exec: str, start: int, *, feed: bool) -> RunResult:
    """Plain pipes. Input that was read for a lost connection is gone; so only who feeds none is attached again."""
    out = {"stdout": writer(1), "stderr": writer(2)}
    chosen = sandbox.find(exec)
    if not feed:
        following = chosen.follow(start)
        for stream, data in following:
            out[stream](data)
        return following.result
    with chosen.attach(standard_input(), start=start) as run:
        for stream, data in run:
            out[stream](data)
        return run.result


def _passed(sandbox: Sandbox, argv: list[str], options: ExecOptions) -> RunResult:
    return sandbox.exec(argv, on_stdout=writer(1), on_stderr=writer(2), **(options | {"stdin": standard_input()}))


def _captured(sandbox: Sandbox, argv: list[str], options: ExecOptions) -> RunResult:
    kept = {"stdout": bytearray(), "stderr": bytearray()}
    fed: ExecOptions = options | {"stdin": standard_input()}
    result = sandbox.exec(argv, on_stdout=keeper(kept["stdout"]), on_stderr=keeper(kept["stderr"]), **fed)
    return replace(result, stdout=bytes(kept["stdout"]), stderr=bytes(kept["stderr"]))


def _terminal() -> Terminal:
    """A detached one's: this terminal's size where there is one, until somebody attaches."""
    for descriptor in (0, 1, 2):
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(descriptor)
            return Terminal(size.lines or 24, size.columns or 80, os.environ.get("TERM") or "xterm")
    return Terminal()
