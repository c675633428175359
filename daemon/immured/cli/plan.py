"""`immure plan`: every step that a run would take, and what would hold each limit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from immured.cli.flags import Flags, compile_order, run_options
from immured.cli.say import json_text, printable
from immured.cli.session import connect
from immured.cli.target import connection_options

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["plan"]


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("command", metavar="-- CMD...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@run_options
@connection_options
def plan(
    command: tuple[str, ...], as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
    **options: Any,
) -> None:  # fmt: skip
    """Print what a run with the same options would do. Nothing runs, no path is opened."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        order = compile_order(Flags(**options), Path.cwd())
        answer = client.plan(
            list(command), manifest=order.manifest, parameters=order.parameters or None, env=order.env or None,
            cwd=order.cwd, limits=order.limits or None,
        )  # fmt: skip
    if as_json:
        click.echo(json_text(answer))
        return
    for number, step in enumerate(_list(answer.get("steps"))):
        click.echo(f"{number:3}  {_step(step)}")
    _table("parameters", answer.get("parameters"))
    _table("limits", answer.get("limits"))
    _table("enforcement", answer.get("enforcement"))


def _step(step: Mapping[str, object]) -> str:
    """`bind         source=/usr target=/usr`: the operation, then its operands."""
    operands = " ".join(f"{name}={_value(value)}" for name, value in step.items() if name != "step")
    return f"{step.get('step', '')!s:18} {operands}".rstrip()


def _value(value: object) -> str:
    if isinstance(value, list):
        return "[" + " ".join(_value(one) for one in value) + "]"
    return printable(str(value))


def _table(title: str, rows: object) -> None:
    if isinstance(rows, dict) and rows:
        click.echo(f"\n{title}")
        for name, value in rows.items():
            click.echo(f"  {printable(str(name)):10}  {printable(str(value))}")


def _list(value: object) -> list[Mapping[str, object]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
