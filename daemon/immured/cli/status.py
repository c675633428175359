"""`immure status`: the daemon's facts."""

from __future__ import annotations

import click

from immured.cli.say import json_text, printable
from immured.cli.session import connect
from immured.cli.target import connection_options

__all__ = ["status"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@connection_options
def status(
    as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """What the daemon is, enforces, and runs."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        facts = client.status()
    click.echo(json_text(facts) if as_json else "\n".join(_lines(facts)))


def _lines(value: object, indent: str = "") -> list[str]:
    """Maps as indented `name  value` lines; lists of plain values on one line."""
    lines: list[str] = []
    for name, inner in value.items() if isinstance(value, dict) else ():
        shown = printable(str(name))
        if isinstance(inner, dict):
            lines += [f"{indent}{shown}", *_lines(inner, indent + "  ")]
        elif isinstance(inner, list) and any(isinstance(one, dict) for one in inner):
            lines.append(f"{indent}{shown}")
            lines += [f"{indent}  {_row(one)}" for one in inner]
        else:
            lines.append(f"{indent}{shown:{max(1, 22 - len(indent))}} {_plain(inner)}")
    return lines


def _row(value: object) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{printable(str(name))}={_plain(inner)}" for name, inner in value.items())
    return _plain(value)


def _plain(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return ", ".join(_plain(one) for one in value) or "none"
    return printable(str(value)) or "none"
