"""`immure key`: make a key pair; let its owner in; see who is in; pass rights on."""

from __future__ import annotations

import click

from immured.cli.key_certify import certify, inspect
from immured.cli.key_files import import_key, new, public, read_public, write_new
from immured.cli.key_ring import add, bind, label, list_keys, resume, revoke, rotate, show, suspend

__all__ = ["key", "read_public", "write_new"]


@click.group(no_args_is_help=True)
def key() -> None:
    """Make keys, let their owners in, and take them out again.

    A new user runs `immure key new` and hands over what it prints; whoever may runs `immure key add`. KEY is a key's
    name or its id. docs/identity.md tells how to rotate a leaked one.
    """


for one in (
    new, import_key, public, add, list_keys, show, label, bind, suspend, resume, revoke, rotate, certify, inspect,
):  # fmt: skip
    key.add_command(one)
