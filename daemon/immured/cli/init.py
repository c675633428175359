"""`immure init`: a state directory."""

from __future__ import annotations

from pathlib import Path

import click

from immured.cli.say import json_text, printable
from immured.cli.target import SYSTEM_STATE

__all__ = ["init"]


@click.command()
@click.option("--state", metavar="DIR", default=SYSTEM_STATE, show_default=True, help="Must not exist, or be empty.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
def init(state: str, as_json: bool) -> None:
    """Make a state directory: the daemon's key, an admin key, the default policy and manifests, an empty ledger."""
    from immured.service.state import init_state

    made = init_state(Path(state))
    paths = made.paths
    if as_json:
        record = {"state": str(paths.root), "daemon": made.key.id, "admin_key": str(paths.admin_key)}
        click.echo(json_text(record))
        return
    root = printable(str(paths.root))
    click.echo(f"state      {root}")
    click.echo(f"daemon     {made.key.id}")
    click.echo(f"admin key  {printable(str(paths.admin_key))}  (gives every order: keep it)")
    click.echo(f"\nNext:\n  immured --state {root} &\n  immure run --state {root} -- echo hello")
