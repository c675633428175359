"""The tree's hashes, kept beside the lines so that proofs need not read them all: DIR/ledger/tree/.

One file a level, named by it in two digits: the hashes of the perfect subtrees of 2**level leaves, 32 bytes each, in
order. `ends` says where lines end, for one in about 64: 16-byte records of a size and the offset in the ledger's stream
at which so many lines end, both big-endian.

All of it is derived. Nothing is synced, and nothing is trusted: whoever makes a proof checks it against a checkpoint.
What is missing or wrong is made anew from the lines. 32 zero bytes are a hash that is not there: where lines are gone
the files begin with holes, but for what the rest needs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from immured._ledger_read import parents, read_piece
from immured.ledger import merkle
from immured.ledger.entry import leaf_hash
from immured.ledger.reader import Readable

__all__ = [
    "TREE",
    "First",
    "NotStored",
    "TreeDirectory",
    "TreeFiles",
    "TreeInMemory",
    "TreeReader",
    "TreeStore",
    "Until",
]

TREE: Final = "tree"

_HASH: Final = 32
_ABSENT: Final = bytes(_HASH)
_ENDS: Final = "ends"
_END: Final = struct.Struct(">QQ")
_BETWEEN: Final = 64  # lines between two records of `ends`, at least
_LEVELS: Final = 54  # a size is below 2**53
_FLUSH: Final = 1 << 20  # bytes of leaves that are kept back at most while all is well
_WAITING: Final = 32 << 20  # bytes of leaves that are kept while the files cannot take them
_CHUNK: Final = 1 << 20  # bytes of lines that are caught up with at once


class NotStored(LookupError):
    """A hash that is asked for is not there (yet, or any more)."""


class TreeFiles(Protocol):
    """Files by name. Every method may raise OSError; a file that was never written is empty."""

    def size(self, name: str) -> int:
        """Bytes."""

    def read(self, name: str, offset: int, length: int) -> bytes:
        """At most `length` bytes; fewer at the end, none past it."""

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Write all of it; a hole before it reads as zeros."""

    def cut(self, name: str, size: int) -> None:
        """Drop what is beyond `size` bytes, if anything is."""


class TreeInMemory:
    """`TreeFiles` that nobody else sees."""

    def __init__(self) -> None:
        self._files: dict[str, bytearray] = {}

    def size(self, name: str) -> int:
        return len(self._files.get(name, b""))

    def read(self, name: str, offset: int, length: int) -> bytes:
        return bytes(self._files.get(name, b"")[offset : offset + length])

    def write(self, name: str, offset: int, data: bytes) -> None:
        file = self._files.setdefault(name, bytearray())
        if len(file) < offset:
            file.extend(bytes(offset - len(file)))
        file[offset : offset + len(data)] = data

    def cut(self, name: str, size: int) -> None:
        if name in self._files:
            del self._files[name][size:]


class TreeDirectory:
    """`TreeFiles` in a directory. Its descriptors stay good: files are cut, never replaced.

    `place` is the path, or a descriptor of the directory for whoever may open no paths. Only `writable` makes it.
    """

    def __init__(self, place: Path | int, *, writable: bool = False) -> None:
        self._place, self._writable = place, writable
        self._open: dict[str, int] = {}
        self._lock = threading.Lock()

    def size(self, name: str) -> int:
        fd = self._fd(name)
        return 0 if fd is None else os.fstat(fd).st_size

    def read(self, name: str, offset: int, length: int) -> bytes:
        fd = self._fd(name)
        return b"" if fd is None else os.pread(fd, length, offset)

    def write(self, name: str, offset: int, data: bytes) -> None:
        fd = self._fd(name, make=True)
        if fd is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        view = memoryview(data)
        while view:
            written = os.pwrite(fd, view, offset)
            view, offset = view[written:], offset + written

    def cut(self, name: str, size: int) -> None:
        fd = self._fd(name)
        if fd is not None and os.fstat(fd).st_size > size:
            os.ftruncate(fd, size)

    def close(self) -> None:
        """Give up the descriptors."""
        with self._lock:
            for fd in self._open.values():
                os.close(fd)
            self._open.clear()

    def _fd(self, name: str, *, make: bool = False) -> int | None:
        with self._lock:
            fd = self._open.get(name)
            if fd is None:
                with contextlib.suppress(FileNotFoundError):
                    fd = self._open[name] = self._opened(name, make=make)
        return fd

    def _opened(self, name: str, *, make: bool) -> int:
        flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_RDWR if self._writable else os.O_RDONLY)
        if isinstance(self._place, int):
            return os.open(name, flags, dir_fd=self._place)
        if make:
            self._place.mkdir(mode=0o700, exist_ok=True)
            flags |= os.O_CREAT
        return os.open(self._place / name, flags, 0o600)


@dataclass(frozen=True, slots=True)
class First:
    """The first line that is kept: its seq, where in the stream it begins, the hashes of the frontier before it."""

    seq: int = 0
    offset: int = 0
    frontier: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class Until:
    """So many lines end at this offset in the stream, and their root is this."""

    size: int
    end: int
    root: bytes


def _name(level: int) -> str:
    return f"{level:02d}"


class TreeReader:
    """The hashes as they are stored, for reading: proofs, tiles. Another process may be writing them."""

    def __init__(self, files: TreeFiles) -> None:
        self._files = files

    @property
    def size(self) -> int:
        """Leaves that are stored, with all above them. Raises OSError, as all that follows."""
        return self._files.size(_name(0)) // _HASH

    def hashes(self, level: int, start: int, count: int) -> bytes:
        """`count` hashes of a level, 32 bytes each, from index `start`. Raises NotStored."""
        found = self._files.read(_name(level), start * _HASH, count * _HASH)
        if len(found) != count * _HASH:
            raise NotStored(f"the tree has no hash {start + len(found) // _HASH} at level {level}")
        return found

    def node(self, level: int, index: int) -> bytes:
        """One hash. Raises NotStored."""
        found = self.hashes(level, index, 1)
        if found == _ABSENT:
            raise NotStored(f"hash {index} at level {level} was of lines that are gone")
        return found

    def root(self, size: int) -> bytes:
        """The root of the first `size` leaves. Raises NotStored."""
        return merkle.root_of(self.node, size)

    def inclusion(self, seq: int, size: int) -> list[bytes]:
        """The hashes that show leaf `seq` in the tree of `size`. Raises NotStored, ValueError."""
        return merkle.inclusion_path(self.node, seq, size)

    def consistency(self, old: int, new: int) -> list[bytes]:
        """The hashes that show that the tree of size `new` begins with that of size `old`. Raises NotStored,
        ValueError."""
        return merkle.consistency_path(self.node, old, new)

    def place(self, seq: int) -> tuple[int, int]:
        """An entry at or shortly before `seq`, and the offset in the stream where its line begins. (0, 0) where
        nothing nearer is known."""
        index = self._ends_until(seq)
        return self._end(index - 1) if index else (0, 0)

    def _end(self, index: int) -> tuple[int, int]:
        raw = self._files.read(_ENDS, index * _END.size, _END.size)
        return _END.unpack(raw) if len(raw) == _END.size else (0, 0)

    def _ends_until(self, size: int) -> int:
        """How many records of `ends` are of sizes up to `size`."""
        low, high = 0, self._files.size(_ENDS) // _END.size
        while low < high:
            middle = (low + high) // 2
            if self._end(middle)[0] <= size:
                low = middle + 1
            else:
                high = middle
        return low


class TreeStore(TreeReader):
    """The same for the one who writes. `extend` and `flush` are the ledger's writer's; `catch_up` may run beside them.

    Nothing here raises OSError where it only writes: what could not be written stays behind, and `failure` says why.
    """

    def __init__(self, files: TreeFiles) -> None:
        super().__init__(files)
        self._lock = threading.Lock()
        self._written = 0
        self._left: list[bytes] = [b""] * _LEVELS
        """Of each level the last hash, where it still waits for its right neighbour."""
        self._waiting = bytearray()
        self._ends = bytearray()
        self._waiting_end = 0
        self._marked = 0
        self._until = 0
        """How many leaves there are, written or waiting."""
        self.behind = False
        """Lines have to be read before anything more can be written."""
        self.overrun = False
        """More came meanwhile than is kept: all has to begin anew."""
        self.failure = ""

    @property
    def size(self) -> int:
        return self._written

    def begin(self, size: int, root: bytes, until: int) -> bool:
        """Take what the files hold, as far as it is of the signed tree of `size` leaves, of a ledger of `until`
        entries. Whether that is all of them; else `catch_up` must follow."""
        with self._lock:
            try:
                self._take(min(size, super().size))
                if self._written == size and self.root(size) != root:
                    self._take(0)
            except (OSError, NotStored) as error:
                self._failed(error)
                with contextlib.suppress(OSError, NotStored):
                    self._take(0)
            self._until = until
            self.behind = self._written != until
            return not self.behind

    def restart(self, until: int) -> None:
        """Begin anew, beside a ledger of `until` entries; `catch_up` must follow."""
        with self._lock:
            self._waiting.clear()
            self._ends.clear()
            self._until, self.behind, self.overrun = until, True, False
            try:
                self._take(0)
            except (OSError, NotStored) as error:
                self._failed(error)

    def extend(self, leaves: bytes, end: int) -> None:
        """The next entries' leaf hashes; `end` is where the last one's line ends in the stream."""
        with self._lock:
            if self.overrun:
                return
            self._waiting += leaves
            self._until += len(leaves) // _HASH
            if self._until - self._marked >= _BETWEEN:
                self._marked = self._until
                self._ends += _END.pack(self._until, end)
            if len(self._waiting) >= _FLUSH:
                self._flush()

    def flush(self) -> None:
        """Write what there is."""
        with self._lock:
            self._flush()

    def catch_up(self, log: Readable, first: First, until: Until, halted: Callable[[], bool] = lambda: False) -> bool:
        """Read the lines up to where they had a root that is known, and store their hashes.

        Whether everything is there now. It is not where the lines have another root (`failure` says so), where a file
        did not take the hashes, or where it was halted. Raises OSError where a line cannot be read.
        """
        for _ in range(2):  # what the files held may have been wrong: then from the first line
            if self._read_up(log, first, until, halted):
                return True
            if halted():
                break
            with self._lock, contextlib.suppress(OSError, NotStored):
                self._take(0)
        return False

    def _read_up(self, log: Readable, first: First, until: Until, halted: Callable[[], bool]) -> bool:
        try:
            with self._lock:
                if self._written < first.seq:
                    self._begin_at(first)
                seq, offset = max(self.place(self._written), (first.seq, first.offset))
            for leaves, ends in _steps(log, seq, offset, self._written, until):
                with self._lock:
                    self._append(leaves, ends)
                if halted():
                    return False
            with self._lock:
                return self._agrees(until)
        except (OSError, NotStored) as error:
            with self._lock:
                self._failed(error)
            return False

    # --- with the lock held ---

    def _agrees(self, until: Until) -> bool:
        if self._written != until.size or self.root(until.size) != until.root:
            self.failure = f"the root of the lines up to {until.size} is not theirs by the ledger"
            return False
        self.behind, self.failure = False, ""
        self._flush()
        return not self.failure

    def _failed(self, error: Exception) -> None:
        self.failure = (error.strerror if isinstance(error, OSError) else None) or str(error)

    def _take(self, size: int) -> None:
        """Go on from the first `size` leaves of what the files hold."""
        for level in range(_LEVELS):
            self._files.cut(_name(level), (size >> level) * _HASH)
        self._files.cut(_ENDS, self._ends_until(size) * _END.size)
        self._written = self._marked = size
        self._left = [b""] * _LEVELS
        for level, index in merkle.frontier(size):
            self._left[level] = self.node(level, index)

    def _begin_at(self, first: First) -> None:
        """Have no leaves before the first line that is kept, but the hashes that all after it needs."""
        self._take(0)
        for (level, index), one in zip(merkle.frontier(first.seq), first.frontier, strict=True):
            self._files.write(_name(level), index * _HASH, one)
        if not first.seq & 1:
            self._files.write(_name(0), (first.seq - 1) * _HASH, _ABSENT)  # the first file's length is the size
        self._files.write(_ENDS, 0, _END.pack(first.seq, first.offset))
        self._take(first.seq)

    def _flush(self) -> None:
        if self.behind or not self._waiting:
            if len(self._waiting) >= _WAITING:
                self._overrun()
            return
        try:
            self._append(bytes(self._waiting), bytes(self._ends))
        except OSError as error:
            self._failed(error)
            if len(self._waiting) >= _WAITING:
                self._overrun()
            return
        self._waiting.clear()
        self._ends.clear()
        self.failure = ""

    def _overrun(self) -> None:
        self._waiting.clear()
        self._ends.clear()
        self.behind = self.overrun = True

    def _append(self, leaves: bytes, ends: bytes) -> None:
        """Store the next leaves and what is above them. The leaves themselves come last: their number is the size."""
        left = self._left.copy()
        pieces: list[tuple[int, int, bytes]] = []
        level, start, hashes = 0, self._written, leaves
        while hashes:
            pieces.append((level, start, hashes))
            pairs = left[level] + hashes if start & 1 else hashes
            whole = len(pairs) // (2 * _HASH) * 2 * _HASH
            left[level] = pairs[whole:]
            start, hashes = start >> 1, parents(pairs[:whole])
            level += 1
        if ends:
            self._files.write(_ENDS, self._ends_until(self._written) * _END.size, ends)
        for level, start, hashes in reversed(pieces):
            self._files.write(_name(level), start * _HASH, hashes)
        self._left = left
        self._written += len(leaves) // _HASH


def _steps(log: Readable, seq: int, offset: int, written: int, until: Until) -> Iterator[tuple[bytes, bytes]]:
    """Leaves and records of `ends` of the lines after the first `written`. Line `seq` begins at `offset`."""
    while seq < until.size and offset < until.end:
        data = log.read(offset, min(_CHUNK, until.end - offset))
        data = data[: data.rfind(b"\n") + 1]
        if not data:
            return
        leaves, starts = _hashed(data)
        skipped, count = max(0, written - seq), min(len(starts) - 1, until.size - seq)
        marks = range(seq + skipped + 1, seq + count + 1)
        ends = [_END.pack(size, offset + starts[size - seq]) for size in marks if size % _BETWEEN == 0]
        if count > skipped:
            yield leaves[skipped * _HASH : count * _HASH], b"".join(ends)
        seq, offset = seq + len(starts) - 1, offset + len(data)


def _hashed(data: bytes) -> tuple[bytes, Sequence[int]]:
    """The leaf hashes of whole lines, and where each begins; and the end."""
    piece = read_piece(data)
    leaves, starts = piece.leaves, [0, *map(piece.end_of, range(1, piece.lines + 1))]
    if piece.end < len(data):  # what is no entry has a leaf hash all the same; the root will tell
        for line in data[piece.end :].split(b"\n")[:-1]:
            leaves += leaf_hash(line)
            starts.append(starts[-1] + len(line) + 1)
    return leaves, starts
