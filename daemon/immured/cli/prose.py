"""Sentences for a person, in whatever language: broken where a reader expects it, within the terminal's width."""

from __future__ import annotations

import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Final

import click

from immured.cli.say import printable

__all__ = ["columns", "heading", "width_of", "wrapped"]

_DEFAULT: Final = 80
_LEAST: Final = 20
_MOST: Final = 100
_NOT_FIRST: Final = frozenset("，。、；：？！）」』》〉】”’…・ー,.;:?!)]}»")
_NOT_LAST: Final = frozenset("（「『《〈【“‘([{«")
_SHOWN: Final = frozenset("\u00a0\u202f\u3000\u200c\u200d")
"""Spaces and joiners of spelling, which Python does not call printable."""
_BREAKS: Final = re.compile(r"[ \u3000]+")


def columns() -> int:
    """How wide lines may be: COLUMNS, else the terminal, else 80; and no wider than one reads well."""
    return max(_LEAST, min(_MOST, shutil.get_terminal_size((_DEFAULT, 24)).columns))


def width_of(text: str) -> int:
    """In cells of a terminal: two for what East Asian scripts write wide, none for marks upon letters."""
    return sum(map(_cells, text))


def wrapped(text: str, width: int | None = None) -> str:
    """Each line a paragraph, broken between words, and between characters that are written wide."""
    limit = columns() if width is None else width
    return "\n".join(line for paragraph in text.split("\n") for line in _lines(_safe(paragraph), limit))


def heading(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Bold where that shows, and the text alone where it would be noise: no terminal, `NO_COLOR`, a dumb one."""
    plain = environment.get("NO_COLOR") or environment.get("TERM") == "dumb" or not sys.stdout.isatty()
    return text if plain else "\n".join(click.style(line, bold=True) for line in text.split("\n"))


def _safe(text: str) -> str:
    return "".join(one if one in _SHOWN else printable(one) for one in text)


def _lines(paragraph: str, limit: int) -> list[str]:
    found, line = list[str](), ""
    for piece in _pieces(paragraph):
        joined = line + piece
        if line and width_of(joined.rstrip()) > limit:
            found.append(line.rstrip())
            joined = piece.lstrip()
        line = joined
    return [*found, line.rstrip()]


def _pieces(paragraph: str) -> Iterator[str]:
    """What is not broken: a word with the space before it, a wide character with what clings to it."""
    start = 0
    for place in range(1, len(paragraph)):
        before, after = paragraph[place - 1], paragraph[place]
        if _BREAKS.match(after) and not _BREAKS.match(before):
            breaks = True
        elif _cells(before) == 2 or _cells(after) == 2:
            breaks = after not in _NOT_FIRST and before not in _NOT_LAST and not _BREAKS.match(before)
        else:
            breaks = False
        if breaks and not unicodedata.combining(after):
            yield paragraph[start:place]
            start = place
    yield paragraph[start:]


def _cells(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
