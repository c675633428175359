"""`immure daemon`: what concerns the daemon itself."""

from __future__ import annotations

import click

from immured.cli.moments import date_of, span_of
from immured.cli.say import json_text, note, printable
from immured.cli.session import connect
from immured.cli.target import connection_options

__all__ = ["daemon"]


@click.group(no_args_is_help=True)
def daemon() -> None:
    """The daemon itself. What it is and has: immure status. Its host: immure doctor."""


@daemon.command()
@click.option("--overlap", metavar="TIME", help="How long the key before signs along.  [7d]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@connection_options
def rotate(
    overlap: str | None, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Give the daemon another key, which signs its replies. Prints the new key's id.

    The old key signs the new one in the ledger, and both sign replies until the overlap is over. By then every client
    that pins the key needs the new daemon.pub (it stands beside the socket).
    """
    overlap_ms = None if overlap is None else span_of(overlap, "--overlap")
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        made = client.daemon_rotate(overlap_ms=overlap_ms)
    if as_json:
        click.echo(json_text(made))
        return
    click.echo(printable(str(made["daemon"])))
    until = made.get("until_ms")
    if isinstance(until, int):
        note(f"{made.get('previous')} signs along until {date_of(until)}: whoever pins it needs the new daemon.pub")
