"""`immure kill`: end a sandbox."""

from __future__ import annotations

import click

from immured.cli.say import json_text, printable
from immured.cli.session import connect
from immured.cli.target import connection_options

__all__ = ["kill"]


@click.command()
@click.argument("sandbox", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@connection_options
def kill(
    sandbox: str, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """End the run in the sandbox ID (`immure status` lists them); its cause is then `killed`."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        answer = client.kill(sandbox)
    click.echo(json_text(answer) if as_json else f"{printable(sandbox)} is ended")
