"""The ledger as C2SP tlog-tiles: static files that standard tools of transparency logs read (c2sp.org/tlog-tiles).

    checkpoint                       the newest signed head; the witnesses' signatures with it, where there are any
    tile/<L>/<N>[.p/<W>]             256 hashes of the tree's level 8L, or the W that there are
    tile/entries/<N>[.p/<W>]         the lines of 256 entries, each behind its length in two bytes

The hash of an entry is the RFC 6962 leaf of its line, which is what a ledger has anyway. `Edge`, which does no I/O, is
the right edge of the tree: all that is needed to go on.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from immured.ledger.checkpoint import Checkpoint, file_name, unverified
from immured.ledger.entry import MAX_LINE, LineError, leaf_hash, parse_line
from immured.ledger.exports.copy import VKEYS, WITNESSED
from immured.ledger.exports.head import Copied, ExportError, Head, differs, no_source
from immured.ledger.exports.seek import offset_of
from immured.ledger.note_keys import NoteError
from immured.ledger.recovery import CHECKPOINTS
from immured.ledger.tree import EMPTY_ROOT, node_hash

if TYPE_CHECKING:
    from immured.ledger.exports.ports import Shelf, Source

__all__ = ["CHECKPOINT", "ENTRIES", "Edge", "TileCopy", "bundle_of", "lines_of", "tile_path"]

CHECKPOINT: Final = "checkpoint"
ENTRIES: Final = "entries"
_WIDTH: Final = 256
_HASH: Final = 32
_CHUNK: Final = 1 << 20


def tile_path(level: int | str, index: int, width: int = _WIDTH) -> str:
    """`tile/0/x001/x234/067.p/8`: a level of hashes, or `entries`; its index in groups of three digits."""
    groups = [f"{index % 1000:03d}"]
    while index := index // 1000:
        groups.append(f"x{index % 1000:03d}")
    partial = f".p/{width}" if width < _WIDTH else ""
    return f"tile/{level}/{'/'.join(reversed(groups))}{partial}"


def bundle_of(lines: Sequence[bytes]) -> bytes:
    """Lines as an entry bundle."""
    return b"".join(struct.pack(">H", len(line)) + line for line in lines)


def lines_of(bundle: bytes) -> list[bytes]:
    """And back. Raises ValueError: it is cut."""
    lines, at = list[bytes](), 0
    while at < len(bundle):
        (length,) = struct.unpack_from(">H", bundle, at) if at + 2 <= len(bundle) else (len(bundle),)
        line = bundle[at + 2 : at + 2 + length]
        if len(line) != length:
            raise ValueError(f"the bundle ends within its entry {len(lines)}")
        lines.append(line)
        at += 2 + length
    return lines


def _root_of(hashes: Sequence[bytes]) -> bytes:
    """Of a power of two of them."""
    while len(hashes) > 1:
        hashes = [node_hash(hashes[at], hashes[at + 1]) for at in range(0, len(hashes), 2)]
    return hashes[0]


class Edge:
    """The tiles that are not full yet, level by level: `levels[L]` are the hashes of the last one of level L."""

    def __init__(self) -> None:
        self.size = 0
        self.levels: list[list[bytes]] = [[]]

    def add(self, leaf: bytes) -> Iterator[tuple[int, int, bytes]]:
        """The next leaf; level, index and content of each tile that it fills."""
        self.size += 1
        carried, level = leaf, 0
        while True:
            if level == len(self.levels):
                self.levels.append([])
            held = self.levels[level]
            held.append(carried)
            if len(held) < _WIDTH:
                return
            index = (self.size >> (8 * level)) // _WIDTH - 1
            yield level, index, b"".join(held)
            carried = _root_of(held)
            held.clear()
            level += 1

    def partial(self) -> Iterator[tuple[int, int, bytes]]:
        """Level, index and content of each tile that is not full."""
        for level, held in enumerate(self.levels):
            if held:
                yield level, (self.size >> (8 * level)) // _WIDTH, b"".join(held)

    def root(self) -> bytes:
        """Of the whole tree."""
        perfect: list[bytes] = []  # the largest first
        for held in reversed(self.levels):
            at = 0
            for bit in (1 << shift for shift in range(7, -1, -1)):
                if len(held) & bit:
                    perfect.append(_root_of(held[at : at + bit]))
                    at += bit
        if not perfect:
            return EMPTY_ROOT
        root = perfect.pop()
        while perfect:
            root = node_hash(perfect.pop(), root)
        return root

    @classmethod
    def at(cls, size: int, tile: Callable[[int, int, int], bytes]) -> Edge:
        """The edge of a tree of that size; `tile(level, index, width)` gives one. Raises ValueError."""
        edge, level = cls(), 0
        edge.size, edge.levels = size, []
        while size >> (8 * level) or not level:
            count = size >> (8 * level)
            width = count % _WIDTH
            data = tile(level, count // _WIDTH, width) if width else b""
            if len(data) != width * _HASH:
                raise ValueError(f"{tile_path(level, count // _WIDTH, width)} has {len(data)} bytes")
            edge.levels.append([data[at : at + _HASH] for at in range(0, len(data), _HASH)])
            level += 1
        return edge


class TileCopy:
    """Keeps the tiles of one ledger up to date at one place, for as long as it lives."""

    def __init__(self, source: Source, shelf: Shelf, progress: Callable[[], None] = lambda: None) -> None:
        """`progress` is told of every file that is done."""
        self._source, self._shelf, self._progress = source, shelf, progress
        self._edge: Edge | None = None
        self._lines: list[bytes] = []  # of the entry bundle that is not full yet
        self._end = 0  # of the stream, up to where the tiles go

    def probe(self, *, begun: bool) -> None:
        """Whether it can be written to now. Raises ExportError, OSError."""
        with self._attached(begun=begun):
            self._shelf.probe()

    def catch_up(self, head: Head, vkeys: bytes, *, begun: bool) -> Copied:
        """Have the tiles hold the ledger up to `head`. Raises ExportError, OSError."""
        with self._attached(begun=begun):
            there = self._shelf.get(CHECKPOINT)
            if there is None and begun:
                raise ExportError(
                    "export_missing",
                    "there is no checkpoint beside the tiles of this ledger any more",
                    "mount what was there; or, to begin anew, move away what is left of the ledger's folder",
                )
            try:
                edge = self._standing(there, head)
                for line in self._new(edge, head):
                    self._take(edge, line)
                self._close(edge, head, vkeys)
            except BaseException:
                self._edge = None  # what is there is looked at anew
                raise
            self._edge = edge
            return Copied(head.size, self._end, there is None)

    @contextlib.contextmanager
    def _attached(self, *, begun: bool) -> Iterator[None]:
        self._shelf.attach(begun=begun)
        try:
            yield
        finally:
            self._shelf.detach()

    # --- where to go on

    def _standing(self, note: bytes | None, head: Head) -> Edge:
        """The edge of what is there, checked against what this ledger has signed."""
        if note is None:
            self._lines, self._end = [], self._started()
            if self._end:
                raise ExportError(
                    "export_source",
                    "the oldest entries of this ledger are retired, and tiles hold all of them",
                    "make tiles from a copy that has them all (immure ledger export --file COPY --tiles ...)",
                )
            return Edge()
        there = self._parsed(note)
        if there.size > head.size:
            raise ExportError(
                "export_ahead",
                f"the tiles hold {there.size} entries of this ledger, and the ledger {head.size}: an older one was "
                "put back",
                "compare them (immure ledger compare); restore the ledger from a copy, or move the tiles away",
            )
        ours = self._parsed(self._signed(there.size))
        if (there.origin, there.root) != (ours.origin, ours.root):
            raise differs(f"its checkpoint of {there.size} entries is not this ledger's")
        if self._edge is not None and self._edge.size == there.size:
            return self._edge
        try:
            edge = Edge.at(there.size, lambda level, index, width: self._tile(tile_path(level, index, width)))
        except ValueError as error:
            raise differs(str(error)) from error
        if edge.root() != ours.root:
            raise differs(f"the tiles at its end are not those of the checkpoint of {there.size} entries")
        index, width = divmod(there.size, _WIDTH)
        try:
            self._lines = lines_of(self._tile(tile_path(ENTRIES, index, width))) if width else []
        except ValueError as error:
            raise differs(f"{tile_path(ENTRIES, index, width)}: {error}") from error
        if [leaf_hash(line) for line in self._lines] != edge.levels[0]:
            raise differs(f"{tile_path(ENTRIES, index, width)} is not what the hashes beside it are of")
        try:
            self._end = offset_of(self._source.read, self._started(), head.end, there.size)
        except (LookupError, LineError, OSError) as error:
            raise no_source(str(error)) from error
        return edge

    def _tile(self, name: str) -> bytes:
        data = self._shelf.get(name)
        if data is None:
            raise differs(f"{name} is not there any more")
        return data

    def _parsed(self, note: bytes) -> Checkpoint:
        try:
            return unverified(note)
        except NoteError as error:
            raise differs(f"its checkpoint is none: {error}") from error

    # --- what goes there

    def _new(self, edge: Edge, head: Head) -> Iterator[bytes]:
        rest, at = b"", self._end
        while edge.size < head.size:
            data = self._ledger(at, min(_CHUNK, head.end - at))
            at += len(data)
            *lines, rest = (rest + data).split(b"\n")
            yield from lines
            if len(rest) > MAX_LINE or not data:
                raise no_source(f"no line ends before byte {at}")
        if rest or at != head.end:
            raise no_source(f"entry {head.size} does not begin at byte {head.end}")
        self._end = at

    def _take(self, edge: Edge, line: bytes) -> None:
        self._lines.append(line)
        full = list(edge.add(leaf_hash(line)))
        if full:
            self._put(tile_path(ENTRIES, full[0][1]), bundle_of(self._lines))
            self._lines = []
        for level, index, data in full:
            self._put(tile_path(level, index), data)

    def _close(self, edge: Edge, head: Head, vkeys: bytes) -> None:
        """What is not full, then the head that signs it all."""
        note = self._signed(head.size)
        ours = self._parsed(note)
        if edge.root() != ours.root:
            raise no_source(f"its entries are not those that its checkpoint of {head.size} signs")
        if self._lines:
            parse_line(self._lines[-1])
            index, width = divmod(edge.size, _WIDTH)
            self._put(tile_path(ENTRIES, index, width), bundle_of(self._lines))
        for level, index, data in edge.partial():
            self._put(tile_path(level, index, len(data) // _HASH), data)
        self._put(VKEYS, vkeys)
        self._put(CHECKPOINT, note)

    def _put(self, name: str, data: bytes) -> None:
        if self._shelf.get(name) == data:
            return
        self._shelf.put(name, data)
        if self._shelf.get(name) != data:
            raise differs(f"{name}, just written, reads otherwise")
        self._progress()

    # --- the ledger

    def _started(self) -> int:
        try:
            return self._source.start()
        except OSError as error:
            raise no_source(error.strerror or str(error)) from error

    def _ledger(self, offset: int, length: int) -> bytes:
        try:
            data = self._source.read(offset, length)
        except OSError as error:
            raise no_source(error.strerror or str(error)) from error
        if len(data) != length:
            raise no_source(f"it ends before byte {offset + length}")
        return data

    def _signed(self, size: int) -> bytes:
        """The ledger's own head of that size, as the witnesses signed it, where they did."""
        name = file_name(size)
        for folder in (WITNESSED, CHECKPOINTS):
            try:
                return self._source.note(folder, name)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise no_source(error.strerror or str(error)) from error
        raise differs(f"it has a checkpoint of {size} entries, which this ledger has not")
