"""`immure session`: what commands of one person or agent are attributed to."""

from __future__ import annotations

import click

from immured.cli.moments import date_of, left, span_of
from immured.cli.say import json_text, printable
from immured.cli.session import connect
from immured.cli.table import table
from immured.cli.target import connection_options
from immured.client.elevation import SessionFacts, Sessions

__all__ = ["session"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")


@click.group(no_args_is_help=True)
def session() -> None:
    """Sessions: a window of one person's or agent's work, named in every entry of the ledger.

    \b
      export IMMURE_SESSION=$(immure session open --note 'incident 7')
      immure run -- ...
      immure session close $IMMURE_SESSION
    """


@session.command("open")
@click.option("--idle", metavar="TIME", help="It ends when it was not used for so long.  [1h]")
@click.option("--ttl", metavar="TIME", help="And after so long at the latest.  [12h]")
@click.option("--note", metavar="TEXT", help="What it is for.")
@_JSON
@connection_options
def open_session(
    idle: str | None, ttl: str | None, note: str | None, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Open one. Prints its id, for --session or IMMURE_SESSION."""
    idle_ms = None if idle is None else span_of(idle, "--idle")
    ttl_ms = None if ttl is None else span_of(ttl, "--ttl")
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        made = Sessions(client).open(idle_ms=idle_ms, ttl_ms=ttl_ms, note=note)
    click.echo(json_text(made.raw) if as_json else printable(made.id))


@session.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@connection_options
def close(
    ids: tuple[str, ...],
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """End some. What was begun in them goes on."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        for one in ids:
            Sessions(client).close(one)
            click.echo(printable(one))


@session.command("list")
@_JSON
@connection_options
def list_sessions(
    as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Those that are open."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        found = Sessions(client).list()
    if as_json:
        click.echo(json_text({"sessions": [one.raw for one in found]}))
        return
    rows = [[one.id, f"{one.tenant}/{one.project}", _over(one), one.sub or "-", one.note] for one in found]
    click.echo(table(["ID", "IN", "LEFT", "FOR", "NOTE"], rows))


@session.command()
@click.argument("id")
@_JSON
@connection_options
def show(
    id: str, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """One; for a day after it was over, too."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        found = Sessions(client).show(id)
    if as_json:
        click.echo(json_text(found.raw))
        return
    opened = "-" if found.opened_ms is None else date_of(found.opened_ms)
    facts = [
        ("session", found.id), ("in", f"{found.tenant}/{found.project}"), ("opened", opened),
        ("until", date_of(found.expires_ms)), ("left", _over(found)), ("for", found.sub or ""), ("note", found.note),
    ]  # fmt: skip
    click.echo("\n".join(f"{name:8}  {printable(value)}" for name, value in facts if value))


def _over(found: SessionFacts) -> str:
    """How long it is open if nobody uses it again."""
    over = found.raw.get("over_ms")
    return left(over if isinstance(over, int) else found.expires_ms)
