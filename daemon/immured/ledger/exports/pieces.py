"""A copy in S3: objects that never change, each a piece of the ledger's stream, named by where it begins and ends.

PREFIX/<32 digits of the origin>/entries/<begins, 20 digits>-<ends, 20 digits>.jsonl
PREFIX/<32 digits of the origin>/checkpoints/<size>, witnessed/<size>, ledger.vkey
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from immured.ledger.entry import MAX_LINE
from immured.ledger.exports.head import ExportError, differs
from immured.ledger.recovery import CHECKPOINTS, checkpoint_names
from immured.ledger.segments import begins_at

if TYPE_CHECKING:
    from immured.ledger.exports.s3 import S3

__all__ = ["ENTRIES", "Objects", "Piece", "Pieces", "find_pieces", "piece_name"]

ENTRIES: Final = "entries"
_NAME: Final = re.compile(r"([0-9]{20})-([0-9]{20})\.jsonl")
_PIECE: Final = 4 << 20

Piece = tuple[int, int]
"""Where in the stream it begins and ends."""


def piece_name(begins: int, ends: int) -> str:
    """Its object, below the ledger's folder."""
    return f"{ENTRIES}/{begins:020d}-{ends:020d}.jsonl"


def find_pieces(s3: S3, folder: str) -> list[Piece]:
    """Every piece that is there, as a stream without a hole. Raises ExportError: one is missing, or is not as long as
    its name says."""
    found: list[Piece] = []
    for name, size in s3.names(f"{folder}/{ENTRIES}/"):
        match = _NAME.fullmatch(name)
        if match is None:
            continue
        begins, ends = int(match[1]), int(match[2])
        if ends - begins != size:
            raise differs(f"{ENTRIES}/{name} has {size} bytes")
        if found and ends <= found[-1][1]:
            continue  # another that was copying at the same time cut it otherwise
        found.append((begins, ends))
    for (_, ends), (begins, _) in pairwise(found):
        if begins > ends:
            raise differs(f"what was at bytes {ends} to {begins} is not there any more")
    if found and found[0][0] > 0:
        line = s3.part(f"{folder}/{piece_name(*found[0])}", 0, MAX_LINE + 1).partition(b"\n")[0]
        if begins_at(line)[1] != found[0][0]:
            raise differs(f"what was before byte {found[0][0]} is not there any more")
    return found


class Objects:
    """`Shelf` over S3: nothing is held between two uses."""

    def __init__(self, s3: S3, folder: str) -> None:
        self._s3, self._folder = s3, folder

    def attach(self, *, begun: bool) -> None:
        """There is nothing to reach before it is asked for; `begun` is for whoever looks at what is there."""

    def detach(self) -> None:
        """Nothing is held."""

    def probe(self) -> None:
        self._s3.probe()

    def put(self, name: str, data: bytes) -> None:
        """An object that is there is never replaced by an equal one: each would be a version that is locked."""
        whole = f"{self._folder}/{name}"
        if self._s3.get(whole) == data:
            return
        self._s3.put(whole, data)
        self._s3.kept(whole, data)

    def get(self, name: str) -> bytes | None:
        return self._s3.get(f"{self._folder}/{name}")


class Pieces(Objects):
    """`Destination` over S3. What it knows to be there it has listed once, and put itself since."""

    def __init__(self, s3: S3, folder: str) -> None:
        super().__init__(s3, folder)
        self._pieces: list[Piece] | None = None

    @property
    def piece(self) -> int:
        return _PIECE

    def attach(self, *, begun: bool) -> None:
        if not self._pieces:
            self._pieces = find_pieces(self._s3, self._folder)
        if begun and not self._pieces:
            raise ExportError(
                "export_missing",
                f"{self._s3.where} has no {self._folder}/{ENTRIES} any more, where a copy of this ledger was begun",
                "find out who removed it: a bucket that keeps versions still has them; or name another prefix",
            )

    def held(self) -> tuple[int, int] | None:
        there = self._there()
        return (there[0][0], there[-1][1]) if there else None

    def append(self, offset: int, data: bytes) -> None:
        there = self._there()
        if there and offset != there[-1][1]:
            raise differs(f"byte {offset} is not what it is there")
        name = piece_name(offset, offset + len(data))
        if self.get(name) not in (None, data):
            raise differs(f"{name} is there already, and is another")
        self.put(name, data)
        there.append((offset, offset + len(data)))

    def read(self, offset: int, length: int) -> bytes:
        found, there = b"", self._there()
        at = max(0, bisect.bisect_right(there, offset, key=lambda one: one[0]) - 1)
        while len(found) < length and at < len(there):
            begins, ends = there[at]
            here = offset + len(found)
            wanted = min(ends - here, length - len(found))
            part = self._s3.part(f"{self._folder}/{piece_name(begins, ends)}", here - begins, wanted)
            found += part
            if len(part) != wanted:
                break
            at += 1
        return found

    def checkpoints(self) -> Sequence[str]:
        return checkpoint_names(name for name, _ in self._s3.names(f"{self._folder}/{CHECKPOINTS}/"))

    def _there(self) -> list[Piece]:
        if self._pieces is None:
            self._pieces = find_pieces(self._s3, self._folder)
        return self._pieces
