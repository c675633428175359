"""The two tables that people read, as values; and what a letter says of a thing."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

__all__ = ["MINE", "OTHERS", "TENANTS", "answers", "covers", "letters"]

_HERE: Final = Path(__file__).parent
LETTERS: Final = frozenset("oths-")
MINE: Final = "acme"
OTHERS: Final = "rival"
TENANTS: Final[Mapping[str, str | None]] = {"own": MINE, "none": None, "other": OTHERS}
"""How answers.txt calls them, and what a command names."""


def _read(name: str) -> tuple[list[str], dict[str, list[str]]]:
    lines = [line.split() for line in (_HERE / name).read_text().splitlines() if line and not line.startswith("#")]
    (_, *columns), *rows = lines
    found = {first: rest for first, *rest in rows}
    assert len(found) == len(rows), f"{name}: a row stands there twice"
    assert all(len(cells) == len(columns) for cells in found.values()), f"{name}: a row is not as long as the head"
    return columns, found


@cache
def letters() -> Mapping[tuple[str, str], str]:
    """By command and role, in the order of the table."""
    roles, rows = _read("expected.txt")
    found = {(cmd, role): cell for cmd, cells in rows.items() for role, cell in zip(roles, cells, strict=True)}
    assert set(found.values()) <= LETTERS
    return found


@cache
def answers() -> Mapping[tuple[str, str], str]:
    """By whose key it is and what tenant is named."""
    tenants, rows = _read("answers.txt")
    assert tenants == list(TENANTS)
    return {(key, tenant): cell for key, cells in rows.items() for tenant, cell in zip(tenants, cells, strict=True)}


def covers(letter: str, whose: str, *, session: bool = False) -> bool:
    """Whether it may be done to what is `own`, a `mate`'s in the same tenant, a `stranger`'s, or the `host`'s."""
    if letter == "s":
        letter = "h" if session else "-"
    return whose in {"-": (), "o": ("own",), "t": ("own", "mate"), "h": ("own", "mate", "stranger", "host")}[letter]
