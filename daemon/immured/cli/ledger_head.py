"""`immure ledger checkpoint`, `rotate-key`: the ledger's newest signed head, and another key for it; by the daemon."""

from __future__ import annotations

import click

from immured.cli.ledger_prove import write_out
from immured.cli.say import json_text, note, printable
from immured.cli.session import connect
from immured.cli.target import connection_options

__all__ = ["checkpoint", "rotate_key"]


@click.command()
@click.option("-o", "--out", metavar="F", type=click.Path(), help="Write it there, not to standard output.")
@click.option("--witnessed", is_flag=True, help="The newest that witnesses cosigned, as they did; else the newest.")
@connection_options
def checkpoint(
    out: str | None, witnessed: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Write the ledger's newest signed head. Kept elsewhere, it shows later whether anything before it was changed."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        head = client.ledger_checkpoint()
    if witnessed and head.witnessed is None:
        note("no witness has cosigned a head yet: this is the newest without")
    write_out(out, head.witnessed if witnessed and head.witnessed is not None else head.note)


@click.command("rotate-key")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@connection_options
def rotate_key(
    as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Give the ledger another key, which signs its heads from now on. Prints the new verifier key.

    The old key signs the new one in the ledger, so whoever has kept the old one can go on verifying. Witnesses have to
    be told (immure ledger witness trust).
    """
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        made = client.ledger_rotate_key()
    if as_json:
        click.echo(json_text(made))
        return
    click.echo(printable(str(made["new"])))
    note(f"it takes the place of {made['old']}")
