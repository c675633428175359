"""Where a ledger begins of which the oldest files were retired, also when its first line is not what it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from immured.ledger.chain import Chain
from immured.ledger.checkpoint import Checkpoint
from immured.ledger.entry import MAX_LINE, LineError, parse_line
from immured.ledger.entry_types import LEDGER_ROTATED
from immured.ledger.reader import Problem, Readable, Standing, begin, read_lines
from immured.ledger.segments import LOG, NEXT, Files

__all__ = ["begun"]

_LOOKED: Final = 64
"""Lines: so many are enough to say what the first one should be."""


def begun(files: Files, heads: Mapping[int, Checkpoint]) -> Standing | Problem:
    """As `reader.begin`; what is wrong with the first line is said of the entry that it should be."""
    start, first = files.start, _first(files, heads)
    found = begin(files, start, heads) if first else Standing(Chain(), start, start)
    if isinstance(found, Problem):
        return replace(found, line=first + 1)
    if found.chain.size != first:
        error = _not_first(files, start, first)
        return Problem(first + 1, start, error.code, error.message, error.expected)
    return found


def _first(files: Files, heads: Mapping[int, Checkpoint]) -> int:
    """The entry that should come first: as its file's name says, or where that has none, its lines and the heads."""
    if not files.single and files.parts[0].name not in (LOG, NEXT):
        return files.first
    votes = _votes(files, files.start, files.size())
    if not votes or max(votes, key=votes.__getitem__) <= 1:
        return 0
    # The daemon signs before each rotation. A line may be gone, or one too many be there.
    signed = [(-count, abs(by), vote + by) for vote, count in votes.items() for by in (0, -1, 1) if vote + by in heads]
    return min(signed)[2] if signed else files.first


def _votes(log: Readable, start: int, size: int) -> Counter[int]:
    """What each of the first lines says of the first, and how many say so."""
    votes: Counter[int] = Counter()
    lines = read_lines(log, start, min(size, start + _LOOKED * MAX_LINE))
    for number, (_, line) in zip(range(_LOOKED), lines, strict=False):
        try:
            votes[max(0, parse_line(line.removesuffix(b"\n")).seq - number)] += 1
        except LineError:
            continue
    return votes


def _not_first(log: Readable, start: int, first: int) -> LineError:
    """Why the first line is none that a kept part begins with."""
    try:
        entry = parse_line(log.read(start, MAX_LINE + 1).partition(b"\n")[0])
    except LineError as error:
        return error
    if entry.seq != first:
        return LineError("bad_seq", f"seq is {entry.seq}", str(first))
    return LineError("bad_first_line", f"what is kept begins with {entry.type}", LEDGER_ROTATED)
