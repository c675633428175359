"""The reader of reader.py at the disk's speed: lines and tree in C, and every fault as the reference names it.

A line is taken in C when the reference would take it (native/core/ledger_line.c). Whatever is not taken, and every head
that does not agree, the reference reads again from the last line before it: there is one verdict, and it is that one's.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from immured._ledger_read import Piece, read_piece
from immured.ledger.chain import Chain
from immured.ledger.checkpoint import Checkpoint
from immured.ledger.entry import Entry
from immured.ledger.entry_types import LEDGER_ROTATED
from immured.ledger.reader import Problem, Readable, Scan, Scanner, Standing, read_lines, scan

__all__ = ["processors", "swift"]

_PIECE: Final = 1 << 20
_LEFT: Final = LEDGER_ROTATED.encode()
"""What such a line says of all that is before it, the reference compares."""

_decode: Final = json.JSONDecoder().decode


def processors() -> int:
    """How many threads make a scan faster: as many as may run at once, and no more than there is work for."""
    return min(4, len(os.sched_getaffinity(0)))


def swift(
    log: Readable,
    size: int,
    heads: Mapping[int, Checkpoint],
    visit: Callable[[Entry], None] | None = None,
    since: Standing | None = None,
    *,
    wanted: Collection[str] | None = None,
    leaves: Callable[[bytes], None] | None = None,
    threads: int = 1,
) -> Scan:
    """Read a ledger's stream up to byte `size`, or the first problem: what `reader.scan` says, in its words.

    `visit` sees the entries of the `wanted` types, in order; without these, every one. `leaves` is given the leaf
    hashes of all good lines, in order, 32 bytes each, many at once. The GIL is given up for most of it; with `threads`
    beyond one, as many pieces of 1 MiB are looked at at once. `since.chain` goes on. Raises OSError.
    """
    swiftly = _Swift(log, size, heads, visit, since or Standing(Chain()), wanted, leaves)
    pieces = _pieces(log, swiftly.standing.end, size)
    if threads < 2 or size - swiftly.standing.end <= _PIECE:
        return swiftly.over((data, swiftly.read(data)) for data in pieces)
    with ThreadPoolExecutor(threads, "ledger-scan") as pool:
        return swiftly.over(_ahead(pieces, lambda data: pool.submit(swiftly.read, data), threads + 1))


def _pieces(log: Readable, start: int, size: int) -> Iterator[bytes]:
    """Whole lines, about 1 MiB of them at a time. What has no newline where there must be one is left."""
    rest, position = b"", start
    while position < size:
        chunk = log.read(position, min(_PIECE, size - position))
        cut = chunk.rfind(b"\n") + 1
        if not cut:
            return
        yield rest + chunk[:cut]
        rest, position = chunk[cut:], position + len(chunk)


def _ahead(
    pieces: Iterator[bytes], begin: Callable[[bytes], Future[Piece]], ahead: int
) -> Iterator[tuple[bytes, Piece]]:
    """Each piece with what was found in it, in order, while `ahead` more are being read."""
    waiting: deque[tuple[bytes, Future[Piece]]] = deque()
    for data in pieces:
        waiting.append((data, begin(data)))
        if len(waiting) > ahead:
            first, found = waiting.popleft()
            yield first, found.result()
    for data, future in waiting:
        yield data, future.result()


class _Swift:
    """One pass: where it stands between two pieces, and how it goes over one."""

    def __init__(
        self,
        log: Readable,
        size: int,
        heads: Mapping[int, Checkpoint],
        visit: Callable[[Entry], None] | None,
        since: Standing,
        wanted: Collection[str] | None,
        leaves: Callable[[bytes], None] | None,
    ) -> None:
        self.standing = since
        self._log, self._size, self._heads = log, size, heads
        self._sizes = deque(sorted(one for one in heads if one > since.chain.size))
        self._visit, self._wanted, self._leaves = visit, None if wanted is None else frozenset(wanted), leaves
        self._types = () if visit is None else None if wanted is None else tuple(one.encode() for one in wanted)

    def read(self, data: bytes) -> Piece:
        """On any thread."""
        return read_piece(data, self._types, _LEFT)

    def over(self, pieces: Iterator[tuple[bytes, Piece]]) -> Scan:
        """All of it. What is left at the end, a line without its newline or too few lines, the reference says."""
        for data, found in pieces:
            ended = self._over(data, found)
            if ended is not None:
                return ended
        return self._by_reference()

    def _over(self, data: bytes, found: Piece) -> Scan | None:
        """Go on to the end of these lines; or what is wrong with one of them."""
        start = self.standing.end
        while True:
            ended = self._accept(data, found) if self._follows(found) else self._one_by_reference()
            if ended is not None:
                return ended
            done = self.standing.end - start
            if done >= len(data):
                return None
            data, start = data[done:], self.standing.end
            found = self.read(data)

    def _follows(self, found: Piece) -> bool:
        chain = self.standing.chain
        return found.lines > 0 and found.seq == chain.size > 0 and found.prev.hex() == chain.last_leaf

    def _accept(self, data: bytes, found: Piece) -> Scan | None:
        """Lines that follow on those before; the signed heads among them are compared."""
        standing, chain = self.standing, self.standing.chain
        tree, first, done = chain.tree.copy(), chain.size, 0
        covered = 0
        while self._sizes and self._sizes[0] <= first + found.lines:
            covered = self._sizes.popleft()
            head = self._heads[covered]
            tree.extend(found.leaves[32 * done : 32 * (covered - first)])
            done = covered - first
            if (head.origin, head.root) != (chain.origin, tree.root()):
                return self._by_reference()
        tree.extend(found.leaves[32 * done :])
        chain.tree, chain.last_leaf, chain.last_ts = tree, found.leaves[-32:].hex(), found.last_ts
        if covered:
            standing.covered, standing.covered_end = covered, standing.end + found.end_of(covered - first)
        standing.previous, standing.end = standing.end + found.end_of(found.lines - 1), standing.end + found.end
        if self._leaves is not None:
            self._leaves(found.leaves)
        if self._visit is not None:
            for number in found.hits:
                self._visit(_entry(data, found, number))
        return None

    def _one_by_reference(self) -> Scan | None:
        """The next line: it may not stand there, or has to be looked at more closely."""
        lines = read_lines(self._log, self.standing.end, self._size)
        scanner = Scanner(lines, self._heads, self.standing)
        taken = scanner.take(*next(lines))
        if isinstance(taken, Problem):
            return Scan(scanner.chain, min(scanner.end, taken.offset), taken, scanner.covered)
        self.standing = scanner.standing
        if self._sizes and self._sizes[0] == scanner.chain.size:
            self._sizes.popleft()
        self._see(taken)
        return None

    def _by_reference(self) -> Scan:
        """All that comes."""
        return scan(self._log, self._size, self._heads, self._see, self.standing)

    def _see(self, entry: Entry) -> None:
        if self._leaves is not None:
            self._leaves(entry.leaf)
        if self._visit is not None and (self._wanted is None or entry.type in self._wanted):
            self._visit(entry)


def _entry(data: bytes, found: Piece, number: int) -> Entry:
    """A line that was found good: what is strict about JSON is done."""
    line = data[found.end_of(number) : found.end_of(number + 1) - 1]
    fields = _decode(line.decode())
    leaf = found.leaves[32 * number : 32 * (number + 1)]
    return Entry(
        fields["seq"], fields["ts"], fields["type"], fields["actor"], fields["data"], fields["prev"], leaf, line
    )
