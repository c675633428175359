"""The table of subcommands, and the one place where an error becomes a line on stderr and an exit status.

Exit statuses: 0; 1 refused or failed; 2 usage; `run` has its own (docs: README). Shell completion is click's own:
`eval "$(_IMMURE_COMPLETE=bash_source immure)"`.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import NoReturn

import click

from immured.cli.say import complain, printable
from immured.errors import ImmuredError

__all__ = ["app", "serve"]

# name -> (where it is, what `immure --help` says of it without importing it)
COMMANDS = {
    "run": ("immured.cli.run:run", "Run a command in a sandbox."),
    "learn": ("immured.cli.learn:learn", "Run a command once, and write the manifest that allows it."),
    "plan": ("immured.cli.plan:plan", "Print what a run would do, step by step, and do none of it."),
    "status": ("immured.cli.status:status", "What the daemon is, enforces, and runs."),
    "kill": ("immured.cli.kill:kill", "End a sandbox."),
    "init": ("immured.cli.init:init", "Make a state directory: keys, policy, an empty ledger."),
    "key": ("immured.cli.key:key", "Make keys, and let their owners in."),
    "ledger": ("immured.cli.ledger:ledger", "Verify and read a ledger, without the daemon."),
    "seccomp": ("immured.cli.seccomp:seccomp", "Ask a system-call filter, or import a profile."),
    "doctor": ("immured.cli.doctor:doctor", "What this host can and cannot enforce."),
}


NATIVE = "IMMURE_NATIVE"
"""Set, to its version, by the native client that became us. It is told, and nothing rests on it."""


class LazyGroup(click.Group):
    """A group whose subcommands are imported when they are called for, and not before."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Whoever read us has left: end as SIGPIPE would, and keep the interpreter from complaining when it flushes.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise click.exceptions.Exit(141) from None

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, said) for name, (_, said) in COMMANDS.items()])


def _version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from immured import __version__

        client = os.environ.get(NATIVE)
        click.echo(f"immure {__version__} (run: {f'native client {printable(client)}' if client else 'Python'})")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print it.")
def app() -> None:
    """Run commands that nobody trusts, and keep the record of it."""


def serve() -> NoReturn:
    """Run the command line on sys.argv and exit."""
    hold_standard_descriptors()
    try:
        status = app.main(prog_name="immure", standalone_mode=False)
    except ImmuredError as error:
        complain(error.code, error.message, error.remedy)
        sys.exit(1)
    except click.UsageError as error:
        complain("usage", error.format_message(), usage_remedy(error))
        sys.exit(2)
    except click.ClickException as error:
        complain("usage", error.format_message())
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    sys.exit(status if isinstance(status, int) else 0)


def hold_standard_descriptors() -> None:
    """Put /dev/null where 0, 1 or 2 is closed: else the socket to the daemon would become our standard output."""
    descriptor = 0
    while descriptor <= 2:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)


def usage_remedy(error: click.UsageError) -> str:
    """Where to read on, for a usage error."""
    return f"{error.ctx.command_path} --help" if error.ctx else "immure --help"
