"""`immure volume`: directories that outlive sandboxes."""

from __future__ import annotations

import dataclasses

import click

from immured.cli.say import json_text
from immured.cli.session import connect
from immured.cli.table import size_text, table
from immured.cli.target import connection_options
from immured.client.volumes import Volumes
from immured.manifest.units import size_of

__all__ = ["volume"]


@click.group(no_args_is_help=True)
def volume() -> None:
    """Directories of your tenant's that outlive sandboxes: caches, work in progress.

    One sandbox has one at a time: `immure run --volume NAME:/cache -- make`.
    """


@volume.command()
@click.argument("name")
@click.option("--size", default="1G", show_default=True, help="The bytes that it holds at most, such as 512M.")
@click.option("--files", type=click.IntRange(1), help="The files that it holds at most; default: one to 16 KiB.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@connection_options
def create(
    name: str, size: str, files: int | None, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Make one."""
    try:
        limit = size_of(size)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--size") from None
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        made = Volumes(client).create(name, bytes=limit, files=files)
    click.echo(json_text(dataclasses.asdict(made)) if as_json else made.name)


@volume.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@connection_options
def list_volumes(
    as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Your tenant's, how full each is, and who has it."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        found = Volumes(client).list()
    if as_json:
        click.echo(json_text({"volumes": [dataclasses.asdict(one) for one in found]}))
        return
    rows = [
        [
            one.name,
            "-" if one.used_bytes is None else size_text(one.used_bytes),
            size_text(one.bytes),
            str(one.files),
            one.means or "-",
            one.sandbox or "-",
        ]
        for one in found
    ]
    click.echo(table(["NAME", "USED", "SIZE", "FILES", "HELD BY", "IN USE BY"], rows))


@volume.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@connection_options
def rm(
    names: tuple[str, ...],
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Remove some that nobody uses, with all that lies in them."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        for name in names:
            click.echo(Volumes(client).remove(name).name)
