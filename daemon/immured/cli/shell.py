"""`immure shell`: a shell in a sandbox, on a terminal."""

from __future__ import annotations

import contextlib
from typing import Any

import click

from immured.cli.flags import run_options, variables
from immured.cli.on_terminal import finish, run_on_terminal
from immured.cli.run import Running
from immured.cli.sandbox_life import creation, life_options
from immured.cli.sandbox_words import escape_option
from immured.cli.say import note
from immured.cli.session import Settled, prepare
from immured.cli.target import connection_options
from immured.client.terminal import LocalTerminal
from immured.errors import ImmuredError

__all__ = ["shell"]

SHELL = "/bin/bash"


@click.command(cls=Running)
@click.argument("sandbox", required=False)
@click.option("--shell", "program", metavar="SHELL", default=SHELL, show_default=True, help="Which; a path inside.")
@click.option("--keep", is_flag=True, help="Without SANDBOX: the one that is made for it lives on.")
@escape_option
@life_options
@run_options
@connection_options
def shell(
    sandbox: str | None, program: str, keep: bool, escape: bytes,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
    **options: Any,
) -> None:  # fmt: skip
    """A shell in a sandbox, on this terminal.

    In SANDBOX, or in one that is made for it, as the options say, and removed behind it. This terminal is as it was
    afterwards, however that comes to be. The shell ends with its connection; to leave one running and come back, see
    `immure sandbox exec --tty --detach` and `immure sandbox attach`.

    \b
      immure shell dev
      immure shell --rw . --memory 2G
    """
    unwanted = sorted(name for name, value in options.items() if value and name not in ("env", "cwd"))
    if sandbox is not None and (unwanted or keep):
        wrong = "keep" if keep else unwanted[0]
        raise click.UsageError(f"--{wrong.replace('_', '-')} is of a sandbox that is made, and {sandbox} is there")
    local = LocalTerminal()
    try:
        settled = prepare(socket, key_file, daemon_key, state, as_user)
        if sandbox is not None:
            chosen = {"env": variables(options["env"]) or None, "cwd": options["cwd"]}
            result = run_on_terminal(settled, local, sandbox, [program], chosen, escape)
        else:
            with settled.client() as client:
                made = client.sandbox(**creation(options, quiet=False))
            try:
                result = run_on_terminal(settled, local, made.id, [program], {}, escape)
            finally:
                _leave_behind(settled, made.id, keep=keep)
    except BaseException:
        local.close()
        raise
    finish(result)


def _leave_behind(settled: Settled, sandbox: str, *, keep: bool) -> None:
    if keep:
        note(f"{sandbox} lives on: immure shell {sandbox}; immure sandbox rm {sandbox}")
        return
    with contextlib.suppress(ImmuredError), settled.client(timeout=10) as client:
        client.at(sandbox).remove()
