"""`immure template`: sandboxes that the daemon holds ready."""

from __future__ import annotations

from collections.abc import Mapping

import click

from immured.cli.say import json_text, printable
from immured.cli.session import connect
from immured.cli.table import table
from immured.cli.target import connection_options

__all__ = ["template"]


@click.group(no_args_is_help=True)
def template() -> None:
    """Sandboxes held ready (`immure sandbox create --template`). The operator writes them: DIR/templates."""


@template.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@connection_options
def list_templates(
    as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Your tenant's, how many of each wait, and why none does."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        result = client.call("template.list").result
    if as_json:
        click.echo(json_text(result))
        return
    found = result.get("templates")
    rows = [_row(one) for one in found if isinstance(one, Mapping)] if isinstance(found, list | tuple) else []
    click.echo(table(["NAME", "READY", "MODULES", "FAILURE"], rows))


def _row(one: Mapping[str, object]) -> list[str]:
    modules = one.get("modules")
    named = ", ".join(map(str, modules)) if isinstance(modules, list | tuple) else ""
    cells = (one.get("template"), f"{one.get('ready')} of {one.get('warm')}", named or "-", one.get("failure", "-"))
    return [printable(str(cell)) for cell in cells]
