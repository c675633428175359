"""`immure snapshot`: what lies in a sandbox, saved, and begun with again."""

from __future__ import annotations

import dataclasses

import click

from immured.cli.say import json_text
from immured.cli.session import connect
from immured.cli.table import size_text, table
from immured.cli.target import connection_options
from immured.client.snapshots import Snapshots

__all__ = ["snapshot"]


@click.group(no_args_is_help=True)
def snapshot() -> None:
    """What lies in a sandbox's own places, saved once; as many sandboxes as you like begin with it.

    immure sandbox create --snapshot NAME
    """


@snapshot.command()
@click.argument("sandbox")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@connection_options
def save(
    sandbox: str, name: str, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Save a sandbox's own places under a name; its commands stand still meanwhile."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        made = Snapshots(client).save(sandbox, name)
    click.echo(json_text(dataclasses.asdict(made)) if as_json else made.name)


@snapshot.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@connection_options
def list_snapshots(
    as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Your tenant's."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        found = Snapshots(client).list()
    if as_json:
        click.echo(json_text({"snapshots": [dataclasses.asdict(one) for one in found]}))
        return
    rows = [[one.name, size_text(one.bytes), str(one.files), one.sandbox, one.manifest[:19]] for one in found]
    click.echo(table(["NAME", "SIZE", "FILES", "OF", "MANIFEST"], rows))


@snapshot.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@connection_options
def rm(
    names: tuple[str, ...],
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Remove some that no live sandbox began with."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        for name in names:
            click.echo(Snapshots(client).remove(name).name)
