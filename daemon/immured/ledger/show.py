"""Reading a ledger for people and scripts: all of it, what matches, the last few, and what comes. One file or many.

Lines are parsed strictly but the chain is not verified here: that is `verify`'s work. Nothing here writes or locks.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import Final

from immured.ledger.belonging import Belonging
from immured.ledger.entry import MAX_LINE, Entry, Json, LineError, parse_line
from immured.ledger.exports.seek import offset_of
from immured.ledger.reader import Problem, read_lines
from immured.ledger.segments import Files
from immured.ledger.selection import Selection

__all__ = ["BadLine", "Selection", "details", "entries", "follow", "last", "one_line", "word"]

_CHUNK: Final = 1 << 16
_LINE_DATA: Final = 160
# What a script compares and nobody reads: behind all else, where a long line is cut.
_BEHIND: Final = frozenset({"nonce", "payload", "iat", "exp", "manifest", "plan", "enforcement", "streams"})


class BadLine(ValueError):
    """A line that is no entry, where one was to be shown: the file that it is in, and its number there from 1."""

    def __init__(self, file: str, number: int, error: LineError) -> None:
        super().__init__(f"{file} line {number}: {error}")
        self.file = file
        self.number = number


def _parse(files: Files, offset: int, line: bytes) -> Entry:
    try:
        return parse_line(line)
    except LineError as error:
        raise _bad(files, offset, error) from None


def _bad(files: Files, offset: int, error: LineError) -> BadLine:
    found = files.placed(Problem(1, offset, error.code, error.message, error.expected))
    return BadLine(found.file, found.line, error)


def entries(path: Path, selection: Selection | None = None) -> Iterator[Entry]:
    """Every entry that matches, in order, of a ledger's directory or of one file. A last line without a newline is left
    out. Raises BadLine, OSError."""
    chosen = selection or Selection()
    with Files.at(path) as files:
        whose = Belonging(whole=files.start == 0) if chosen.tenant is not None else None
        begins = files.start if whose is not None else _before(files, chosen.first)
        for offset, line in read_lines(files, begins, files.size()):
            if not line.endswith(b"\n"):
                if len(line) <= MAX_LINE:
                    return
                raise _bad(
                    files, offset, LineError("line_too_long", "no newline in sight", f"at most {MAX_LINE} bytes")
                )
            entry = _parse(files, offset, line[:-1])
            if chosen.end is not None and entry.seq >= chosen.end:
                return
            if (whose is None or whose.of(entry) == chosen.tenant) and chosen.matches(entry):
                yield entry


def _before(files: Files, seq: int) -> int:
    """Where to begin to look for the entry: at its line, or where that is not found so, at its file's beginning."""
    part = files.before(seq)
    if seq <= part.first:
        return part.offset
    with contextlib.suppress(LineError, LookupError):
        return offset_of(files.read, part.offset, part.end, seq)
    return part.offset


def _lines_backwards(files: Files) -> Iterator[tuple[int, bytes]]:
    """Every whole line, the last one first: where it ends (past its newline), and its bytes without the newline."""
    position = files.size()
    end, rest = position, b""
    complete = False  # what follows the last newline is no line yet
    while position > files.start:
        length = min(_CHUNK, position - files.start)
        position -= length
        rest, *pieces = (files.read(position, length) + rest).split(b"\n")
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
    if chosen.tenant is not None:  # whose one is, those before it say
        return list(deque(entries(path, chosen), count))
    with Files.at(path) as files:
        for end, line in _lines_backwards(files):
            if len(found) >= count:
                break
            entry = _parse(files, end - len(line) - 1, line)
            if chosen.matches(entry):
                found.append(entry)
            if entry.seq < chosen.first:
                break
    return found[::-1]


def _after(files: Files, seq: int | None) -> int:
    """The offset at which the line after `seq` begins; without `seq`, the line that is not there yet."""
    for end, line in _lines_backwards(files):
        if seq is None or _parse(files, end - len(line) - 1, line).seq <= seq:
            return end
    return files.start


def follow(
    path: Path,
    selection: Selection | None = None,
    *,
    after: int | None = None,
    pause: Callable[[], bool] | None = None,
) -> Iterator[Entry]:
    """Entries as they come: those after index `after`, or after what the ledger holds now; through rotations.

    `pause` waits a little and says whether to go on; by default for good, twenty times a second. Entries are shown once
    they are in the file, which is shortly before they are durable. Raises BadLine, OSError.
    """
    chosen = selection or Selection()
    wait = pause or _forever
    with Files.at(path) as files:
        begins = _after(files, after)
        whose = _known(files, begins) if chosen.tenant is not None else None
        position, rest = begins, b""
        while True:
            while chunk := files.read(position, _CHUNK):
                position += len(chunk)
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    entry = _parse(files, begins, line)
                    begins += len(line) + 1
                    if (whose is None or whose.of(entry) == chosen.tenant) and chosen.matches(entry):
                        yield entry
            if not files.refresh() and not wait():
                return


def _known(files: Files, until: int) -> Belonging:
    """What there is to know of the lines before byte `until`."""
    whose = Belonging(whole=files.start == 0)
    for offset, line in read_lines(files, files.start, until):
        whose.of(_parse(files, offset, line.removesuffix(b"\n")))
    return whose


def _forever() -> bool:
    time.sleep(0.05)
    return True


def word(text: str) -> str:
    """As one word, with nothing in it that a terminal obeys."""
    return text if text.isprintable() and text and " " not in text else ascii(text)


def _short(value: Json) -> str:
    if isinstance(value, dict):
        if "sha256" in value and "len" in value:
            return f"<{_short(value['len'])} bytes, sha256 {_short(value['sha256'])[:12]}>"
        return "{" + _members(value.items()) + "}"
    if isinstance(value, list):
        return "[" + " ".join(_short(item) for item in value) + "]"
    if isinstance(value, str):
        return word(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _members(values: Iterable[tuple[str, Json]]) -> str:
    return " ".join(f"{word(key)}={_short(value)}" for key, value in values)


def one_line(entry: Entry) -> str:
    """The entry on one line of a terminal, cut where it gets long; nothing in it can move the cursor."""
    return (
        f"{entry.seq:>8}  {entry.ts[:23]}Z  {entry.type:<16} {_members(entry.actor.items())}  {details(entry, set())}"
    )


def details(entry: Entry, hidden: Container[str], room: int | None = None) -> str:
    """What it says, but for the members `hidden`, in at most so many columns."""
    said = ((name, value) for name, value in entry.data.items() if name not in hidden)
    text, room = _members(sorted(said, key=lambda member: member[0] in _BEHIND)), room or _LINE_DATA
    return text if len(text) <= room else text[: room - 1] + "\u2026"
