"""`immure whoami`: as whom the daemon takes one."""

from __future__ import annotations

import click

from immured.cli.say import json_text, printable
from immured.cli.session import connect
from immured.cli.target import connection_options

__all__ = ["whoami"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@connection_options
def whoami(
    as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """As whom the daemon takes you under these options, and which commands some rule allows you."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        said = client.whoami()
    if as_json:
        click.echo(json_text(said))
        return
    shown = ("name", "key", "root", "role", "roles", "persona", "tenant", "project", "sub", "session", "standing")
    for name in (*shown, "uid", "gid", "pid", "exe", "policy", "permissions"):
        if name in said:
            click.echo(f"{name:12}  {_text(said[name])}")


def _text(value: object) -> str:
    return printable(", ".join(map(str, value)) if isinstance(value, list) else str(value))
