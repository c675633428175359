"""A ledger beside something that was kept of it elsewhere: are they the same, and if not, what is the first difference?

    compare(files, origin, find(path, origin))

What was kept is any of `others.py`'s: lines (all of them, or some), or a signed head. Nothing of either side is
believed: that a ledger is whole by itself is for `verify` to say, and who signed what is for whoever has the keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from immured.ledger.checkpoint import Checkpoint, origin_of
from immured.ledger.entry import LineError, leaf_hash, parse_line
from immured.ledger.reader import Problem, begin, read_lines

if TYPE_CHECKING:
    from immured.ledger.segments import Files

__all__ = [
    "ALTERED", "DAMAGED", "FORKED", "NEWER", "OLDER", "OTHER", "SAME", "UNKNOWN", "Comparison", "Damaged", "Elsewhere",
    "Heads", "Kept", "Line", "Lines", "Single", "compare", "numbered",
]  # fmt: skip

SAME: Final = "same"
OLDER: Final = "older"
"""What was kept ends earlier: all of it is in this ledger."""
NEWER: Final = "newer"
"""What was kept goes on where this ledger ends: an older ledger was put here, or its end was cut off."""
FORKED: Final = "forked"
"""Both are whole chains that part at an entry: one of them was written anew from there on."""
ALTERED: Final = "altered"
"""A line differs, and what follows it was not written for it."""
DAMAGED: Final = "damaged"
"""What was kept is not whole by itself."""
OTHER: Final = "other"
"""Another host's ledger."""
UNKNOWN: Final = "unknown"
"""This ledger does not hold any more what was kept."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of what was kept, without its newline, and where it stands there."""

    seq: int
    raw: bytes
    where: str


class Damaged(Exception):
    """What was kept is not whole: the message says what and where."""


class Lines(Protocol):
    """What was kept are lines, in order. `complete`: all from the first on, so that none may be missing between."""

    @property
    def complete(self) -> bool: ...

    def lines(self) -> Iterator[Line]:
        """Raises Damaged where it ends, or does not read, as it should; OSError, ExportError."""

    def undamaged(self, line: Line, ours: bytes) -> str:
        """What else is known of a line that is not ours: empty, or words."""


class Single:
    """Of what has but one of each line."""

    def undamaged(self, line: Line, ours: bytes) -> str:
        """There is nothing else to ask."""
        del line, ours
        return ""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What was kept there is of other ledgers alone."""

    where: str
    origins: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Heads:
    """What was kept is a signed head; with a proof, also the line of an entry."""

    head: Checkpoint
    where: str
    line: Line | None = None


Kept = Lines | Heads | Elsewhere


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was found. `seq`: the first entry that differs, or that one side lacks; `ours`, `theirs`: its lines."""

    verdict: str
    message: str
    entries: int = 0
    """How many entries were found to be the same."""
    seq: int | None = None
    line: int | None = None
    """In the ledger's own file, from 1."""
    file: str = ""
    ours: str = ""
    theirs: str = ""
    where: str = ""
    """Where it stands in what was kept."""
    details: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether all that was kept is in this ledger as it was."""
        return self.verdict in (SAME, OLDER)

    def as_dict(self) -> dict[str, object]:
        """For `--json`: absent means empty or none."""
        said = {name: getattr(self, name) for name in self.__slots__}
        return {"good": self.good} | {name: value for name, value in said.items() if value not in ("", None, [])}


class _Ours:
    """This ledger's lines, one after the other, with one to look ahead."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._lines = read_lines(files, files.start, files.size())
        self.seq, self.offset, self.raw = files.first - 1, files.start, b""
        self.first = files.first
        self.ended = False

    def to(self, seq: int) -> bool:
        """Go on to this entry; whether it is there."""
        while self.seq < seq and not self.ended:
            self._step()
        return not self.ended

    def rest(self) -> int:
        """How many more there are."""
        before = self.seq
        while not self.ended:
            self._step()
        return self.seq - before

    def _step(self) -> None:
        offset, line = next(self._lines, (self.offset, b""))
        if not line.endswith(b"\n"):
            self.ended = True  # or it is just being written
            return
        self.seq, self.offset, self.raw = self.seq + 1, offset, line[:-1]

    def place(self) -> tuple[str, int]:
        """The file that the line is in, and its number there."""
        name, within = self._files.locate(self.offset)
        start, count = self.offset - within, 1
        while start < self.offset:
            data = self._files.read(start, min(1 << 20, self.offset - start))
            if not data:
                break
            start, count = start + len(data), count + data.count(b"\n")
        return name, count


def compare(files: Files, origin: str, kept: Kept) -> Comparison:
    """`origin` is this ledger's. Raises OSError, ExportError."""
    if isinstance(kept, Heads):
        return _heads(files, origin, kept)
    if isinstance(kept, Elsewhere):
        named = ", ".join(kept.origins[:4])
        return Comparison(OTHER, f"it holds nothing of this ledger, but other hosts': {named}", where=kept.where)
    try:
        return _lines(_Ours(files), origin, kept)
    except Damaged as error:
        return Comparison(DAMAGED, str(error))


def _lines(ours: _Ours, origin: str, kept: Lines) -> Comparison:
    same, before = 0, -1
    theirs = kept.lines()
    for line in theirs:
        if line.seq == 0 and origin_of(leaf_hash(line.raw)) != origin and _created(line.raw):
            return Comparison(OTHER, f"it is {origin_of(leaf_hash(line.raw))}: another host's ledger", where=line.where)
        if line.seq <= before:
            raise Damaged(f"{line.where}: entry {line.seq} comes after {before}")
        before = line.seq
        if line.seq < ours.first:
            continue  # retired here: what was kept of it is all that there is
        if not ours.to(line.seq):
            missing = (
                f"this ledger ends before entry {line.seq}, which was kept: an older one was put here, or it was cut"
            )
            return Comparison(NEWER, missing, same, line.seq, theirs=_text(line.raw), where=line.where)
        if line.raw != ours.raw:
            return _different(ours, line, theirs, kept, same)
        same += 1
    if not kept.complete:
        return Comparison(SAME, f"each of its {same} lines is in this ledger", same)
    seq, more = ours.seq + 1, ours.rest()
    if same and not more:
        return Comparison(SAME, "it is this ledger, entry for entry", same)
    if not same:
        return Comparison(OLDER, "it holds nothing of what is kept here", 0)
    return Comparison(OLDER, f"it ends before entry {seq}, and is this ledger up to there", same, seq)


def _different(ours: _Ours, theirs: Line, more: Iterator[Line], kept: Lines, same: int) -> Comparison:
    name, number = ours.place()
    mine = ours.raw
    details = [said] if (said := kept.undamaged(theirs, mine)) else []
    try:
        after = next(more, None)
    except Damaged as error:
        after = None
        details.append(str(error))
    ours_holds = not ours.to(theirs.seq + 1) or _follows(mine, ours.raw)
    theirs_hold = _is_entry(theirs) and (
        after is None or after.seq != theirs.seq + 1 or _follows(theirs.raw, after.raw)
    )
    if ours_holds and theirs_hold:
        verdict, message = (
            FORKED,
            f"entry {theirs.seq} differs, and both go on from it: one was written anew from there",
        )
    else:
        which = "here" if theirs_hold else "there" if ours_holds else "on both sides"
        verdict, message = ALTERED, f"entry {theirs.seq} differs: the line was altered {which}"
    return Comparison(
        verdict, message, same, theirs.seq, number, name, _text(mine), _text(theirs.raw), theirs.where, details
    )


def _heads(files: Files, origin: str, kept: Heads) -> Comparison:
    head = kept.head
    if head.origin != origin:
        return Comparison(OTHER, f"it is of {head.origin}: another host's ledger", where=kept.where)
    if kept.line is not None:
        ours = _Ours(files)
        if kept.line.seq >= ours.first and ours.to(kept.line.seq) and ours.raw != kept.line.raw:
            return _different(ours, kept.line, iter(()), _Alone(), 0)
    if head.size < files.first:
        said = f"what it signs is not kept here any more: this ledger begins with entry {files.first}"
        return Comparison(UNKNOWN, said + "; compare with a copy that has them all (--copy)", where=kept.where)
    begun = begin(files, files.start, {})
    if isinstance(begun, Problem):
        return Comparison(UNKNOWN, f"this ledger does not say what was before its first entry: {begun}")
    tree = begun.chain.tree
    for _, line in read_lines(files, files.start, files.size()):
        if tree.size == head.size or not line.endswith(b"\n"):
            break
        tree.append(leaf_hash(line[:-1]))
    if tree.size < head.size:
        message = (
            f"this ledger ends after {tree.size} entries, and {head.size} were signed: an older one was put here, or it"
        )
        return Comparison(NEWER, f"{message} was cut", 0, tree.size, where=kept.where)
    if tree.root() != head.root:
        message = f"one of the first {head.size} entries is another than what was signed; which, a head does not tell"
        return Comparison(FORKED, message, where=kept.where)
    more = files.first + _Ours(files).rest() - head.size
    verdict = OLDER if more else SAME
    return Comparison(verdict, f"the first {head.size} entries are those that it signs; {more} came after", head.size)


class _Alone(Single):
    """One line by itself."""

    complete = False

    def lines(self) -> Iterator[Line]:
        return iter(())


def _follows(line: bytes, after: bytes) -> bool:
    try:
        return parse_line(after).prev == leaf_hash(line).hex()
    except LineError:
        return False


def _is_entry(line: Line) -> bool:
    try:
        return parse_line(line.raw).seq == line.seq
    except LineError:
        return False


def _created(raw: bytes) -> bool:
    try:
        return parse_line(raw).type == "ledger.created"
    except LineError:
        return False


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def numbered(lines: Iterable[tuple[int, bytes]], first: int, name: str) -> Iterator[Line]:
    """Lines of a stream, with their offsets, as `read_lines` gives them. Raises Damaged: it ends within one."""
    for seq, (offset, line) in enumerate(lines, first):
        if not line.endswith(b"\n"):
            raise Damaged(f"{name}: it ends within the line of entry {seq}, at byte {offset + len(line)}")
        yield Line(seq, line[:-1], f"{name}, byte {offset}")
