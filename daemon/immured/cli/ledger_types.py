"""`--type` of the ledger's commands: a name that no entry has is said, or its silence would look like an answer."""

from __future__ import annotations

import fnmatch
from typing import Final

import click

from immured.cli.say import note
from immured.ledger import entry_types
from immured.wire.strict import nearest

__all__ = ["KNOWN", "types_option"]

KNOWN: Final = frozenset(value for name, value in vars(entry_types).items() if name.isupper() and "." in str(value))
"""Every type that this version writes."""


def types_option(_ctx: click.Context, _param: click.Parameter, types: tuple[str, ...]) -> tuple[str, ...]:
    """What was given, as it is: a ledger of a later version may have more. What this one has none of is noted."""
    for one in types:
        if not any(fnmatch.fnmatchcase(known, one) for known in KNOWN):
            near = nearest(one, KNOWN)
            like = f"; did you mean {near!r}?" if near else ""
            note(f"this version writes no entry of the type {one!r}{like} (docs/ledger.md has them all)")
    return types
