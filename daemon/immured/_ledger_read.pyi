"""The ledger's lines, read at the disk's speed: a line is taken here when immured/ledger/entry.py takes it."""

from collections.abc import Sequence

def read_line(line: bytes) -> tuple[int, str, str, bytes, bytes, bytes, bytes] | None:
    """(seq, ts, type, actor, data, prev, leaf) of a line without its newline, or None where it is no entry.

    `actor` and `data` are JSON as they stand there; `prev` and `leaf` are 32 bytes.
    """

class Piece:
    """What `read_piece` found."""

    @property
    def lines(self) -> int:
        """Good lines: each an entry, and the next after the one before it."""
    @property
    def end(self) -> int:
        """Their bytes; less than the piece has where a line was not good, or left."""
    @property
    def seq(self) -> int:
        """Of the first of them; with its `prev` (32 bytes) for the caller to compare with what was before."""
    @property
    def prev(self) -> bytes: ...
    @property
    def leaves(self) -> bytes:
        """32 bytes a line."""
    @property
    def last_ts(self) -> str:
        """Of the last of them."""
    @property
    def hits(self) -> list[int]:
        """The numbers, from 0, of the lines of a type that was asked for."""
    def end_of(self, count: int) -> int:
        """Where the first `count` lines end. Raises IndexError."""

def read_piece(data: bytes, wanted: Sequence[bytes] | None = (), left: bytes | None = None) -> Piece:
    """Read whole lines, the GIL given up meanwhile, up to the first of the type `left`.

    `wanted` are types whose lines are listed, None: all. Raises ValueError for over 1 GiB, or over 256 types.
    """

def parents(hashes: bytes) -> bytes:
    """The nodes above these, two by two, 32 bytes each; the last one is left over where their number is odd. The GIL is
    given up meanwhile. Raises ValueError for what is not of 32 bytes each."""
