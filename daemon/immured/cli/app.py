"""The table of subcommands, and the one place where an error becomes a line on stderr and an exit status.

Exit statuses: 0; 1 refused or failed; 2 usage; `run` has its own (docs: README). Shell completion is click's own:
`eval "$(_IMMURE_COMPLETE=bash_source immure)"`.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from immured.cli.lazy import LazyGroup
from immured.cli.say import complain, note, printable
from immured.cli.target import name_options
from immured.errors import ImmuredError

__all__ = ["app", "serve"]

# name -> (where it is, what `immure --help` says of it without importing it)
COMMANDS = {
    "run": ("immured.cli.run:run", "Run a command in a sandbox."),
    "sandbox": ("immured.cli.sandbox:sandbox", "Sandboxes that live: make, use, look into, end."),
    "file": ("immured.cli.files:files", "Files of a sandbox: put, get, look, change."),
    "changes": ("immured.cli.changes:changes", "What a sandbox wrote: look, accept, discard."),
    "shell": ("immured.cli.shell:shell", "A shell in a sandbox."),
    "batch": ("immured.cli.batch:batch", "Run many commands, each in a sandbox of its own."),
    "volume": ("immured.cli.volume:volume", "Directories that outlive sandboxes."),
    "snapshot": ("immured.cli.snapshot:snapshot", "What lies in a sandbox, saved, and begun with again."),
    "image": ("immured.cli.image:image", "Roots for sandboxes, from OCI images."),
    "template": ("immured.cli.template:template", "Sandboxes that are held ready."),
    "learn": ("immured.cli.learn:learn", "Run a command once, and write the manifest that allows it."),
    "compat": ("immured.cli.compat:compat", "Run what another sandbox's helper was called with."),
    "manifest": ("immured.cli.manifest:manifest", "What sandboxes may do: write it, sign it, have it in force."),
    "plan": ("immured.cli.plan:plan", "Print what a run would do, step by step, and do none of it."),
    "status": ("immured.cli.status:status", "What the daemon is, enforces, and runs."),
    "metrics": ("immured.cli.metrics:metrics", "Whether all that was decided and run is in the ledger; incidents."),
    "kill": ("immured.cli.kill:kill", "End a run."),
    "init": ("immured.cli.init:init", "Make a state directory: keys, policy, an empty ledger."),
    "daemon": ("immured.cli.daemon:daemon", "The daemon's own key, replaced."),
    "key": ("immured.cli.key:key", "Make keys, and let their owners in."),
    "policy": ("immured.cli.policy:policy", "Who may do what: check, compare, try, put in force, ask why."),
    "whoami": ("immured.cli.whoami:whoami", "As whom the daemon takes you, and what you may."),
    "session": ("immured.cli.sessions:session", "Commands of one person or agent, attributed to it."),
    "preflight": ("immured.cli.preflight:preflight", "Whether a run would be let in, check by check; nothing runs."),
    "consent": ("immured.cli.consent:consent", "What a manifest asks you to agree to, and your answer."),
    "grant": ("immured.cli.grant:grant", "One command, once, beyond a key's policy."),
    "proposal": ("immured.cli.proposal:proposal", "Commands that others approve first."),
    "ledger": ("immured.cli.ledger:ledger", "Verify and read a ledger, without the daemon."),
    "seccomp": ("immured.cli.seccomp:seccomp", "Ask a system-call filter, or import a profile."),
    "doctor": ("immured.cli.doctor:doctor", "What this host can and cannot enforce."),
}


NATIVE = "IMMURE_NATIVE"
"""Set, to its version, by the native client that became us. It is told, and nothing rests on it."""


class App(LazyGroup):
    """The whole command line."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Whoever read us has left: end as SIGPIPE would, and keep the interpreter from complaining when it flushes.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise click.exceptions.Exit(141) from None


def _version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from immured import __version__

        client = os.environ.get(NATIVE)
        click.echo(f"immure {__version__} (run: {f'native client {printable(client)}' if client else 'Python'})")
        ctx.exit()


@click.group(cls=App, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@name_options
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print it.")
def app() -> None:
    """Run commands that nobody trusts, and keep the record of it."""


def serve() -> NoReturn:
    """Run the command line on sys.argv and exit."""
    hold_standard_descriptors()
    try:
        status = app.main(prog_name="immure", standalone_mode=False)
    except ImmuredError as error:
        if error.code == "proposed":
            say_proposed(error)
            sys.exit(0)
        complain(error.code, error.message, error.remedy)
        sys.exit(1)
    except click.UsageError as error:
        complain("usage", error.format_message(), usage_remedy(error))
        sys.exit(2)
    except click.ClickException as error:
        complain("usage", error.format_message())
        sys.exit(error.exit_code)
    except OSError as error:
        name = f"{printable(os.fsdecode(error.filename))}: " if isinstance(error.filename, str | bytes) else ""
        complain("input_output", f"{name}{error.strerror or error}", "name another file, or see to this one")
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    sys.exit(status if isinstance(status, int) else 0)


def say_proposed(error: ImmuredError) -> None:
    """With --propose a command comes to this: the proposal's id on stdout, and what is to be done with it."""
    click.echo(error.details["proposal"])
    note(f"{error.message}: {error.remedy}")


def hold_standard_descriptors() -> None:
    """Put /dev/null where 0, 1 or 2 is closed: else the socket to the daemon would become our standard output."""
    descriptor = 0
    while descriptor <= 2:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)


def usage_remedy(error: click.UsageError) -> str:
    """Where to read on, for a usage error."""
    return f"{error.ctx.command_path} --help" if error.ctx else "immure --help"
