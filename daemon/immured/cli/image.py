"""`immure image`: roots for sandboxes."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import click

from immured.cli.say import json_text, printable
from immured.cli.session import connect
from immured.cli.table import table
from immured.cli.target import SYSTEM_STATE, connection_options
from immured.client.volumes import images

__all__ = ["image"]


@click.group(no_args_is_help=True)
def image() -> None:
    """Roots for sandboxes, unpacked from OCI images by the operator and named by their digest."""


@image.command("import")
@click.argument("layout", metavar="LAYOUT[:REF]")
@click.option("--state", metavar="DIR", default=SYSTEM_STATE, show_default=True, help="The daemon's state directory.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
def import_(layout: str, state: str, as_json: bool) -> None:
    """Unpack an image from an OCI layout on disk (or docker-archive:FILE and its like). As root.

    To fetch one: skopeo copy docker://debian:12 oci:LAYOUT:debian-12
    """
    from immured.host.oci_layout import import_image
    from immured.service.state import find_state, make_storage

    paths = find_state(Path(state))
    make_storage(paths)
    record = import_image(paths.images, layout, time.time_ns() // 1_000_000)
    click.echo(json_text(record) if as_json else f"image:{printable(str(record['digest']))}")


@image.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@connection_options
def list_images(
    as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Those that there are."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        found = client.ask(images())
    if as_json:
        click.echo(json_text({"images": [dataclasses.asdict(one) for one in found]}))
        return
    click.echo(table(["ROOT", "NAME"], [[f"image:{one.digest}", one.name] for one in found]))
