"""`immure ledger query`: entries that one may see, from the daemon."""

from __future__ import annotations

from itertools import islice
from typing import Any

import click

from immured.cli.ledger_show import print_entries, selecting_options
from immured.cli.session import connect
from immured.cli.target import connection_options

__all__ = ["query"]


@click.command()
@click.option("-n", "count", type=click.IntRange(1), help="At most so many.")
@click.option("--seq", "first", type=click.IntRange(0), default=0, metavar="N", help="From entry N on.")
@click.option("--of", "tenant", metavar="NAME", help="This tenant's, where you reach more than yours; '': the host's.")
@click.option("--local", is_flag=True, help="Times of this place, not UTC.")
@selecting_options
@connection_options
def query(
    count: int | None, first: int, tenant: str | None, local: bool, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
    **chosen: Any,
) -> None:  # fmt: skip
    """Print the entries that you may see, oldest first: what you caused, what your tenant did, or all, as policy has
    it. What is printed is the daemon's word: immure ledger prove SEQ --ask has a proof of each."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        print_entries(islice(client.ledger_query(tenant=tenant, first=first, **chosen), count), as_json, local)
