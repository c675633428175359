"""`immure grant`: one command, by one key, once, that policy does not allow it."""

from __future__ import annotations

import click

from immured.cli.moments import left, span_of
from immured.cli.say import json_text, printable
from immured.cli.session import connect
from immured.cli.table import table
from immured.cli.target import connection_options
from immured.client.elevation import Grants

__all__ = ["grant"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")


@click.group(no_args_is_help=True)
def grant() -> None:
    """One command, by one key, once, within a day, that no rule of the policy allows it.

    Rules that deny hold against a grant, and nobody grants what he may not do himself.
    """


@grant.command()
@click.argument("key")
@click.argument("cmd")
@click.option("--ttl", metavar="TIME", default="1h", show_default=True, help="How long it can be used; at most 1d.")
@click.option("--reason", metavar="WHY", required=True, help="For the ledger.")
@click.option("--in-project", metavar="NAME", help="Only in this project of the tenant.")
@click.option("--digest", metavar="SHA256", help="Only that very command, as `immure proposal show` names it.")
@_JSON
@connection_options
def issue(
    key: str, cmd: str, ttl: str, reason: str, in_project: str | None, digest: str | None, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Let KEY give CMD once, in the tenant that --tenant names. Prints the grant's id.

    \b
      immure grant issue bob file.put --ttl 30m --reason 'mends the build, ticket 7'
    """
    ttl_ms = span_of(ttl, "--ttl")
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        made = Grants(client).issue(key, cmd, ttl_ms=ttl_ms, reason=reason, project=in_project, digest=digest)
    click.echo(json_text(made.raw) if as_json else printable(made.id))


@grant.command("list")
@_JSON
@connection_options
def list_grants(
    as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Those that can still be used."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        found = Grants(client).list()
    if as_json:
        click.echo(json_text({"grants": [one.raw for one in found]}))
        return
    rows = [
        [one.id, one.key, one.cmd, f"{one.tenant}/{one.project or '*'}", left(one.expires_ms), one.reason]
        for one in found
    ]
    click.echo(table(["ID", "KEY", "COMMAND", "IN", "LEFT", "WHY"], rows))


@grant.command()
@click.argument("grants", metavar="GRANT...", nargs=-1, required=True)
@connection_options
def revoke(
    grants: tuple[str, ...],
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Take some back that were not used."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        for one in grants:
            click.echo(printable(Grants(client).revoke(one).id))
