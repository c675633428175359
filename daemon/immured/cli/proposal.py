"""`immure proposal`: commands that others approve before they are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from immured.cli.manifest_proposed import growth_lines
from immured.cli.moments import date_of, left
from immured.cli.say import json_text, printable
from immured.cli.session import connect
from immured.cli.table import table
from immured.cli.target import connection_options
from immured.client.elevation import Proposal, Proposals

if TYPE_CHECKING:
    from immured.client.sync import Client

__all__ = ["proposal"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")


@click.group(no_args_is_help=True)
def proposal() -> None:
    """Commands that the policy puts under the control of more than one key.

    \b
    1. `immure --propose WHY COMMAND...` records the command, and does not do it; it prints the proposal's id.
    2. Others look at it (`show`) and agree to it (`approve`).
    3. The very same `immure COMMAND...` is then done, once; the approval of
       the key that gives it does not count.
    """


@proposal.command("list")
@_JSON
@connection_options
def list_proposals(
    as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Those that are open."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        found = Proposals(client).list()
    if as_json:
        click.echo(json_text({"proposals": [one.raw for one in found]}))
        return
    rows = [
        [one.id, one.cmd, f"{one.tenant}/{one.project}", _got(one), left(one.expires_ms), one.proposer, one.reason]
        for one in found
    ]
    click.echo(table(["ID", "COMMAND", "IN", "APPROVED", "LEFT", "BY", "WHY"], rows))


@proposal.command()
@click.argument("id")
@_JSON
@connection_options
def show(
    id: str, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """One, with the arguments of its command: what is to be approved."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        found = Proposals(client).show(id)
        lines = [] if as_json else [*_lines(found), *_growth(client, found, state)]
    click.echo(json_text(found.raw) if as_json else "\n".join(lines))


@proposal.command()
@click.argument("id")
@click.option("--digest", metavar="SHA256", help="Of the command that you looked at.  [asked for]")
@_JSON
@connection_options
def approve(
    id: str, digest: str | None, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Agree to one, for another key to give. Without --digest it is shown first, and you are asked."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        proposals = Proposals(client)
        if digest is None:
            found = proposals.show(id)
            click.echo("\n".join([*_lines(found), *_growth(client, found, state)]), err=True)
            click.confirm("Approve that very command?", abort=True, err=True)
            digest = found.digest
        done = proposals.approve(id, digest)
    click.echo(json_text(done.raw) if as_json else f"{printable(done.id)}  {_got(done)}")
    if not as_json:
        click.echo("It counts as long as another key than yours gives the command.", err=True)


@proposal.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@connection_options
def withdraw(
    ids: tuple[str, ...],
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """They are not to be done."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        for one in ids:
            click.echo(printable(Proposals(client).withdraw(one).id))


def _got(found: Proposal) -> str:
    """How far each control is: `two-for-policy 1/2`; where none stands, how many agreed."""
    controls = found.raw.get("controls")
    rows = [one for one in controls if isinstance(one, dict)] if isinstance(controls, list) else []
    if not rows:
        return str(len(found.approvals))
    return printable(", ".join(f"{one.get('name')} {one.get('got', 0)}/{one.get('approvals')}" for one in rows))


def _growth(client: Client, found: Proposal, state: str | None) -> list[str]:
    if found.cmd != "manifest.load" or found.args is None:
        return []
    return growth_lines(client, found.args, state)


def _lines(found: Proposal) -> list[str]:
    facts = [
        ("proposal", found.id), ("command", found.cmd), ("in", f"{found.tenant}/{found.project}"),
        ("digest", found.digest), ("proposed by", found.proposer), ("why", found.reason),
        ("at", date_of(found.created_ms)), ("until", date_of(found.expires_ms)), ("approved", _got(found)),
        *(("", f"{one.key} as {one.role}, {date_of(one.at_ms)}") for one in found.approvals),
    ]  # fmt: skip
    lines = [f"{name:12}  {printable(value)}" for name, value in facts]
    return lines if found.args is None else [*lines, "arguments", _shown(found.args)]


def _shown(args: object) -> str:
    """Line by line, so that a file in an argument can be read, and nothing in it reaches the terminal unseen."""
    lines = json_text(args).split("\n")
    return "\n".join(f"  {printable(part)}" for line in lines for part in line.replace("\\n", "\\n\n    ").split("\n"))
