"""Reading a ledger for people and scripts: all of it, what matches, the last few, and what comes.

Lines are parsed strictly but the chain is not verified here: that is `verify`'s work. Nothing here writes or locks.
"""

from __future__ import annotations

import fnmatch
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from immured.ledger.entry import MAX_LINE, Entry, Json, LineError, parse_line

__all__ = ["BadLine", "Selection", "entries", "follow", "last", "one_line"]

_CHUNK: Final = 1 << 16
_LINE_DATA: Final = 160
# What a script compares and nobody reads: behind all else, where a long line is cut.
_BEHIND: Final = frozenset({"nonce", "payload", "iat", "exp", "manifest", "plan", "enforcement", "streams"})


class BadLine(ValueError):
    """A line that is no entry, where one was to be shown: its number from 1, or 0 where counting began at the end."""

    def __init__(self, number: int, error: LineError) -> None:
        super().__init__(f"line {number}: {error}" if number else str(error))
        self.number = number


@dataclass(frozen=True, slots=True)
class Selection:
    """Which entries: every condition that is given must hold."""

    types: tuple[str, ...] = ()
    """Names, or patterns such as `run.*`; any of them."""
    since: str = ""
    """A time stamp, or the beginning of one; that moment and later."""
    until: str = ""
    """Before it."""
    first: int = 0
    end: int | None = None
    """Indices: first <= seq < end."""
    actor: str = ""
    """One of the actor's values, whole."""
    sandbox: str = ""
    """`data.sandbox`."""

    def matches(self, entry: Entry) -> bool:
        """Whether the entry is one of these."""
        if entry.seq < self.first or (self.end is not None and entry.seq >= self.end):
            return False
        if self.types and not any(fnmatch.fnmatchcase(entry.type, pattern) for pattern in self.types):
            return False
        # One notation of fixed width: text sorts as time does.
        if (self.since and entry.ts < self.since) or (self.until and entry.ts >= self.until):
            return False
        if self.actor and self.actor not in (str(value) for value in entry.actor.values()):
            return False
        return not self.sandbox or entry.data.get("sandbox") == self.sandbox


def _parse(number: int, line: bytes) -> Entry:
    try:
        return parse_line(line)
    except LineError as error:
        raise BadLine(number, error) from None


def entries(path: Path, selection: Selection | None = None) -> Iterator[Entry]:
    """Every entry that matches, in order. A last line without a newline is left out. Raises BadLine, OSError."""
    chosen = selection or Selection()
    with path.open("rb") as file:
        number = 0
        while (line := file.readline(MAX_LINE + 2)).endswith(b"\n"):
            number += 1
            entry = _parse(number, line[:-1])
            if chosen.end is not None and entry.seq >= chosen.end:
                return
            if chosen.matches(entry):
                yield entry
        if len(line) > MAX_LINE:
            raise BadLine(number + 1, LineError("line_too_long", "no newline in sight", f"at most {MAX_LINE} bytes"))


def _lines_backwards(descriptor: int) -> Iterator[tuple[int, bytes]]:
    """Every whole line, the last one first: where it ends (past its newline), and its bytes without the newline."""
    position = os.fstat(descriptor).st_size
    end, rest = position, b""
    complete = False  # what follows the last newline is no line yet
    while position:
        length = min(_CHUNK, position)
        position -= length
        rest, *pieces = (os.pread(descriptor, length, position) + rest).split(b"\n")
        for piece in reversed(pieces):
            if complete:
                yield end, piece
                end -= 1
            end -= len(piece)
            complete = True
        if len(rest) > MAX_LINE + 1:
            break
    if complete:
        yield end, rest


def last(path: Path, count: int, selection: Selection | None = None) -> list[Entry]:
    """The last `count` entries that match, oldest first, reading no more than that takes. Raises BadLine, OSError."""
    chosen, found = selection or Selection(), list[Entry]()
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for _, line in _lines_backwards(descriptor):
            if len(found) >= count:
                break
            entry = _parse(0, line)
            if chosen.matches(entry):
                found.append(entry)
            if entry.seq < chosen.first:
                break
    finally:
        os.close(descriptor)
    return found[::-1]


def _after(descriptor: int, seq: int | None) -> int:
    """The offset at which the line after `seq` begins; without `seq`, the line that is not there yet."""
    for end, line in _lines_backwards(descriptor):
        if seq is None or _parse(0, line).seq <= seq:
            return end
    return 0


def follow(
    path: Path,
    selection: Selection | None = None,
    *,
    after: int | None = None,
    pause: Callable[[], bool] | None = None,
) -> Iterator[Entry]:
    """Entries as they come: those after index `after`, or after what the file holds now.

    `pause` waits a little and says whether to go on; by default for good, twenty times a second. Entries are shown once
    they are in the file, which is shortly before they are durable. Raises BadLine, OSError.
    """
    chosen = selection or Selection()
    wait = pause or _forever
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        position, rest = _after(descriptor, after), b""
        while True:
            while chunk := os.pread(descriptor, _CHUNK, position):
                position += len(chunk)
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    entry = _parse(0, line)
                    if chosen.matches(entry):
                        yield entry
            if not wait():
                return
    finally:
        os.close(descriptor)


def _forever() -> bool:
    time.sleep(0.05)
    return True


def _word(text: str) -> str:
    return text if text.isprintable() and text and " " not in text else ascii(text)


def _short(value: Json) -> str:
    if isinstance(value, dict):
        if "sha256" in value and "len" in value:
            return f"<{_short(value['len'])} bytes, sha256 {_short(value['sha256'])[:12]}>"
        return "{" + _members(value.items()) + "}"
    if isinstance(value, list):
        return "[" + " ".join(_short(item) for item in value) + "]"
    if isinstance(value, str):
        return _word(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _members(values: Iterable[tuple[str, Json]]) -> str:
    return " ".join(f"{_word(key)}={_short(value)}" for key, value in values)


def one_line(entry: Entry) -> str:
    """The entry on one line of a terminal, cut where it gets long; nothing in it can move the cursor."""
    text = _members(sorted(entry.data.items(), key=lambda member: member[0] in _BEHIND))
    if len(text) > _LINE_DATA:
        text = text[: _LINE_DATA - 1] + "\u2026"
    return f"{entry.seq:>8}  {entry.ts[:23]}Z  {entry.type:<16} {_members(entry.actor.items())}  {text}"
