"""The one reader of a ledger's stream, for recovery and for verification alike. No I/O of its own.

`scan` goes through the lines and stops at the first that is not what it must be. `is_torn` then says whether what is
there can be the remains of a write that a crash interrupted, and nothing else. Only that is ever set aside.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from immured.ledger.chain import BrokenLink, Chain
from immured.ledger.checkpoint import Checkpoint
from immured.ledger.entry import MAX_LINE, Entry, LineError, leaf_hash, parse_line
from immured.ledger.entry_types import LEDGER_ROTATED

__all__ = ["MAX_BATCH", "Problem", "Readable", "Scan", "Scanner", "Standing", "begin", "is_torn", "read_lines", "scan"]

MAX_BATCH: Final = 1 << 20
"""Bytes that the writer makes durable at once: what a crash can leave unfinished is never longer."""

_CHUNK: Final = 1 << 20
_SECTOR: Final = 512


class Readable(Protocol):
    """What is read: a `LogFile`, or any file that answers a positioned read."""

    def read(self, offset: int, length: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Problem:
    """The first thing wrong. `line` counts from 1, as editors do; `seq` from 0, as entries do."""

    line: int
    """In the ledger's stream; in `file`, where that is said."""
    offset: int
    """Where in the stream the line begins, in bytes."""
    code: str
    message: str
    expected: str
    file: str = ""
    """In the ledger's directory; empty where there is one file. See `segments.Files.placed`."""
    before: int = 0
    """Entries before that file's first."""

    @property
    def seq(self) -> int:
        return self.before + self.line - 1

    def __str__(self) -> str:
        return f"line {self.line} (seq {self.seq}): {self.code}: {self.message}; expected {self.expected}"


@dataclass(slots=True)
class Standing:
    """How far a reader has come: every line before byte `end` is good, and `chain` stands behind the last of them."""

    chain: Chain
    end: int = 0
    previous: int = 0
    """Where the last of those lines begins."""
    covered: int = 0
    """Entries under the largest checkpoint that agreed, and the byte where they end."""
    covered_end: int = 0


@dataclass(slots=True)
class Scan:
    """What a scan found: the good lines are those before byte `end`."""

    chain: Chain
    end: int
    problem: Problem | None
    covered: int
    """Entries under the largest checkpoint that agrees with them."""


def read_lines(log: Readable, start: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of every line, with its newline; the last may lack it, and one too long is given cut short."""
    rest, offset, position = b"", start, start
    while position < size:
        chunk = log.read(position, min(_CHUNK, size - position))
        if not chunk:
            break
        position += len(chunk)
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        for line in lines:
            yield offset, line + b"\n"
            offset += len(line) + 1
        if len(rest) > MAX_LINE:
            break
    if rest:
        yield offset, rest


class Scanner:
    """One pass over the lines, from where one stands to the first problem."""

    def __init__(
        self, lines: Iterator[tuple[int, bytes]], heads: Mapping[int, Checkpoint], since: Standing | None = None
    ) -> None:
        since = since or Standing(Chain())
        self.chain = since.chain
        self.end = since.end
        self.covered = since.covered
        self._covered_end = since.covered_end
        self._previous = since.previous
        self._lines = lines
        self._heads = heads

    @property
    def standing(self) -> Standing:
        """How far it has come."""
        return Standing(self.chain, self.end, self._previous, self.covered, self._covered_end)

    def _here(self, offset: int, error: LineError) -> Problem:
        return Problem(self.chain.size + 1, offset, error.code, error.message, error.expected)

    def take(self, offset: int, line: bytes) -> Entry | Problem:
        """The next line, with its newline: an entry, or what is wrong with it, or with the one before."""
        if not line.endswith(b"\n"):
            if len(line) > MAX_LINE:
                error = LineError("line_too_long", "no newline in sight", f"at most {MAX_LINE} bytes")
            else:
                error = LineError("torn_line", "the last line has no newline", "a newline")
            return self._here(offset, error)
        try:
            entry = self.chain.check(line[:-1])
        except BrokenLink as error:
            return self._blame(offset, error)
        except LineError as error:
            return self._here(offset, error)
        if entry.type == LEDGER_ROTATED and entry.data.get("bytes") != offset:
            what = f"bytes is {str(entry.data.get('bytes'))[:80]}"
            return self._here(offset, LineError("bad_rotation", what, f"{offset}, where the line begins"))
        self.chain.accept(entry)
        self._previous, self.end = offset, offset + len(line)
        head = self._heads.get(self.chain.size)
        return entry if head is None else self._compare(head) or entry

    def _blame(self, offset: int, error: BrokenLink) -> Problem:
        """Of two lines that do not link, the one that was altered."""
        following = next(self._lines, (0, b""))[1]
        sound = self._vouched(error, following[:-1] if following.endswith(b"\n") else None)
        if not sound:
            return self._here(offset, error)
        return Problem(
            self.chain.size,
            self._previous,
            "altered_line",
            f"its leaf is {self.chain.last_leaf}",
            f"{error.entry.prev}, which the next line was chained to",
        )

    def _vouched(self, error: BrokenLink, following: bytes | None) -> bool:
        """Whether the line with the unexpected `prev` is itself sound."""
        if following is not None:
            try:
                return parse_line(following).prev == error.entry.leaf.hex()
            except LineError:
                return False
        # The last line: only a checkpoint can tell. Without one, the first line that nothing vouches for is blamed.
        if self.chain.size in self._heads:
            return False  # the line before is as it was signed
        signed = self._heads.get(self.chain.size + 1)
        if signed is None:
            return True
        mended = self.chain.tree.copy()
        mended.append(leaf_hash(error.entry.line.replace(error.entry.prev.encode(), self.chain.last_leaf.encode())))
        return mended.root() != signed.root

    def _is_alone(self) -> bool:
        """Whether nothing that comes is chained to the last line."""
        following = next(self._lines, None)
        try:
            return following is None or parse_line(following[1].removesuffix(b"\n")).prev != self.chain.last_leaf
        except LineError:
            return False

    def _compare(self, head: Checkpoint) -> Problem | None:
        """None when the lines so far are the ones that were signed."""
        chain, covered = self.chain, self.covered
        if (head.origin, head.root) == (chain.origin, chain.tree.root()):
            self.covered, self._covered_end = chain.size, self.end
            return None
        # A line that nothing is chained to can have been altered alone. Any other would have broken the chain: then all
        # from some line on was written anew, and the first of them lies after the checkpoint that agreed.
        line, offset = (chain.size, self._previous) if self._is_alone() else (covered + 1, self._covered_end)
        if head.origin != chain.origin:
            says = f"{head.origin}, as a checkpoint says"
            return Problem(line, offset, "other_ledger", f"this is the ledger {chain.origin}", says)
        message = f"of lines {covered + 1} to {chain.size} one is not what was signed: the root is "
        return Problem(line, offset, "not_as_signed", message + chain.tree.root().hex(), head.root.hex())

    def finish(self) -> Problem | None:
        """What is missing after the last line."""
        if not self.chain.size:
            return Problem(1, 0, "empty", "the file has no entry", "ledger.created")
        beyond = max(self._heads, default=0)
        if beyond > self.chain.size:
            message = f"the file ends after {self.chain.size} entries"
            return Problem(self.chain.size + 1, self.end, "missing_lines", message, f"{beyond}, as a checkpoint says")
        return None


def begin(log: Readable, start: int, heads: Mapping[int, Checkpoint]) -> Standing | Problem:
    """Where to scan from: byte `start` of the stream, which is its first that is kept.

    A ledger whose beginning was retired begins with a `ledger.rotated`. What that says of the tree before it is so when
    a checkpoint of that size says so too: where `heads` are given, the one of that size has to be among them.
    """
    line = log.read(start, MAX_LINE + 1).partition(b"\n")[0]
    try:
        entry = parse_line(line)
    except LineError:
        return Standing(Chain(), start, start)  # what is wrong with it, the scan says
    if entry.type != LEDGER_ROTATED or not entry.seq:
        return Standing(Chain(), start, start)
    try:
        chain = Chain.before(entry)
    except LineError as error:
        return Problem(entry.seq + 1, start, error.code, error.message, error.expected)
    standing, root = Standing(chain, start, start), chain.tree.root()
    if root.hex() != entry.data.get("root"):
        wrong = LineError(
            "bad_rotation", f"root is {str(entry.data.get('root'))[:80]}", f"{root.hex()}, its frontier's"
        )
        return Problem(entry.seq + 1, start, wrong.code, wrong.message, wrong.expected)
    if not heads:
        return standing
    head = heads.get(entry.seq)
    if head is None:
        message = f"the ledger is kept from entry {entry.seq} on, and no checkpoint shows what was before"
        return Problem(entry.seq + 1, start, "anchor_missing", message, f"the checkpoint {entry.seq:020d}")
    if head.origin != chain.origin:
        says = f"{head.origin}, as a checkpoint says"
        return Problem(entry.seq + 1, start, "other_ledger", f"this is the ledger {chain.origin}", says)
    if head.root != root:
        message = f"the root of what was before entry {entry.seq} is {root.hex()}"
        return Problem(entry.seq + 1, start, "not_as_signed", message, head.root.hex())
    standing.covered, standing.covered_end = entry.seq, start
    return standing


def scan(
    log: Readable,
    size: int,
    heads: Mapping[int, Checkpoint],
    visit: Callable[[Entry], None] | None = None,
    since: Standing | None = None,
) -> Scan:
    """Read the first `size` bytes of a ledger's file, line by line, up to the first problem.

    `heads` are verified checkpoints by size; `since` says what of it was read before, and its chain goes on. Memory
    does not grow with the file. A line is visited only when it is good; that the line after it links to it is known one
    line later.
    """
    lines = read_lines(log, since.end if since is not None else 0, size)
    scanner = Scanner(lines, heads, since)
    problem: Problem | None = None
    for offset, line in lines:
        taken = scanner.take(offset, line)
        if isinstance(taken, Problem):
            problem = taken
            break
        if visit is not None:
            visit(taken)
    else:
        problem = scanner.finish()
    end = scanner.end if problem is None else min(scanner.end, problem.offset)
    return Scan(scanner.chain, end, problem, scanner.covered)


def is_torn(log: Readable, start: int, size: int, next_seq: int, base: int = 0) -> bool:
    """Whether the bytes from `start`, where the first bad line begins, can be what a crash left of the last batch.

    A batch is written only after the one before it is durable, so nothing in it was ever acknowledged. Its remains are
    the batch cut short within its first line, or the batch with whole sectors that never reached the disk and read as
    zeros. Everything else that is still readable must be entries, in order, chained where they are neighbours.

    `base`: where the file begins that was written. Nothing before it was; and its first line, where it goes on from
    another, was durable before it was the file.
    """
    if size - start > MAX_BATCH or start < base or (base and start == base):
        return False
    tail = log.read(start, size - start)
    if b"\n" not in tail and len(tail) <= MAX_LINE:
        return True
    for hole in re.finditer(rb"\x00+", tail):
        begin, end = start + hole.start(), start + hole.end()
        if not (begin == start or (begin - base) % _SECTOR == 0) or not (end == size or (end - base) % _SECTOR == 0):
            return False
    *lines, _unfinished = tail.split(b"\n")
    if not lines or b"\x00" not in lines[0]:
        return False
    seq, leaf = next_seq, ""
    for line in lines:
        if b"\x00" in line:
            leaf = ""
            continue
        try:
            entry = parse_line(line)
        except LineError:
            return False
        if entry.seq < seq or (leaf and (entry.seq != seq or entry.prev != leaf)):
            return False
        seq, leaf = entry.seq + 1, entry.leaf.hex()
    return True
