"""`immure sandbox`: sandboxes that live."""

from __future__ import annotations

import click

from immured.cli.sandbox_exec import attach, execute
from immured.cli.sandbox_life import create, extend, kill, pause, prune, remove, resume, signal_exec
from immured.cli.sandbox_look import execs, listing, logs, show, stats

__all__ = ["sandbox"]


@click.group(no_args_is_help=True)
def sandbox() -> None:
    """Sandboxes that live: made once, worked in, looked into, thrown away.

    SANDBOX is an id, or the name that it was given.

    \b
      immure sandbox create --name dev --rw . --ttl 2h
      immure sandbox exec dev -- make test
      immure shell dev
      immure sandbox rm dev
    """


for one in (
    create, listing, show, execute, attach, logs, execs, signal_exec, stats, pause, resume, extend, kill, remove, prune,
):  # fmt: skip
    sandbox.add_command(one)
