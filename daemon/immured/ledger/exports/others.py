"""What may be compared with a ledger: a copy, tiles, pieces in S3, JSON lines, a head, a proof, a witness's state.

`find` says what it is by looking at it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from immured.errors import ConfigurationError
from immured.ledger.checkpoint import Checkpoint, NoteError, unverified
from immured.ledger.entry import LineError, leaf_hash, parse_line
from immured.ledger.exports.compare import Damaged, Elsewhere, Heads, Kept, Line, Single, numbered
from immured.ledger.exports.head import ExportError, folder_of
from immured.ledger.exports.tiles import CHECKPOINT, ENTRIES, Edge, lines_of, tile_path
from immured.ledger.proof import MAX_PROOF, Proof, ProofError
from immured.ledger.reader import read_lines
from immured.ledger.segments import LOG, Files

if TYPE_CHECKING:
    from immured.ledger.exports.pieces import Piece
    from immured.ledger.exports.s3 import S3

__all__ = ["find", "find_in_s3"]

_FOLDER: Final = re.compile(r"[0-9a-f]{32}")
_PROOF: Final = b"c2sp.org/tlog-proof@"


class _Stream(Single):
    """A copy, laid out as a ledger."""

    complete = True

    def __init__(self, path: Path) -> None:
        self._path = path

    def lines(self) -> Iterator[Line]:
        with Files.at(self._path) as files:
            yield from numbered(read_lines(files, files.start, files.size()), files.first, str(self._path))


class _Jsonl(Single):
    """Some lines, by themselves."""

    complete = False

    def __init__(self, path: Path) -> None:
        self._path = path

    def lines(self) -> Iterator[Line]:
        with self._path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                where = f"{self._path}, line {number}"
                if not raw.endswith(b"\n"):
                    raise Damaged(f"{where}: it ends within this line")
                try:
                    yield Line(parse_line(raw[:-1]).seq, raw[:-1], where)
                except LineError as error:
                    raise Damaged(f"{where}: {error}") from None


class _Tiles:
    """Tiles, by what reads one of their files. They are held to be what their own checkpoint signs."""

    complete = True

    def __init__(self, where: str, read: Callable[[str], bytes | None]) -> None:
        self._where, self._read = where, read

    def lines(self) -> Iterator[Line]:
        head, edge = self._head(), Edge()
        for index in range((head.size + 255) // 256):
            name = tile_path(ENTRIES, index, min(256, head.size - 256 * index))
            try:
                found = lines_of(self._file(name))
            except ValueError as error:
                raise Damaged(f"{self._where}/{name}: {error}") from None
            for raw in found:
                line = Line(edge.size, raw, f"{self._where}/{name}")
                tiles = list(edge.add(leaf_hash(raw)))
                yield line
                for level, number, data in tiles:
                    self._same(tile_path(level, number), data)
        if edge.size != head.size:
            raise Damaged(f"{self._where}: its bundles hold {edge.size} entries, and its checkpoint signs {head.size}")
        for level, number, data in edge.partial():
            self._same(tile_path(level, number, len(data) // 32), data)
        if edge.root() != head.root:
            raise Damaged(f"{self._where}: its entries are not those that its own checkpoint signs")

    def undamaged(self, line: Line, ours: bytes) -> str:
        width = 256 if (line.seq // 256 + 1) * 256 <= self._head().size else self._head().size % 256
        at = 32 * (line.seq % 256)
        stored = (self._read(tile_path(0, line.seq // 256, width)) or b"")[at : at + 32]
        return "the hash beside it is of the line as it is here" if stored == leaf_hash(ours) else ""

    def _head(self) -> Checkpoint:
        try:
            return unverified(self._file(CHECKPOINT))
        except NoteError as error:
            raise Damaged(f"{self._where}/{CHECKPOINT}: {error}") from None

    def _same(self, name: str, data: bytes) -> None:
        if self._file(name) != data:
            raise Damaged(f"{self._where}/{name}: it is not the hashes of the entries beside it")

    def _file(self, name: str) -> bytes:
        data = self._read(name)
        if data is None:
            raise Damaged(f"{self._where}/{name} is not there")
        return data


class _Pieces:
    """Pieces in S3."""

    complete = True

    def __init__(self, s3: S3, folder: str) -> None:
        from immured.ledger.exports.pieces import Pieces, find_pieces

        self._s3, self._folder = s3, folder
        self._copy = Pieces(s3, folder)
        try:
            self._found: list[Piece] = find_pieces(s3, folder)
        except ExportError as error:
            if error.code != "export_differs":
                raise
            self._found, self._why = [], error.message
        else:
            self._why = ""

    @property
    def there(self) -> bool:
        return bool(self._found or self._why)

    def lines(self) -> Iterator[Line]:
        from immured.ledger.segments import begins_at

        if not self._found:
            raise Damaged(f"{self._s3.where}/{self._folder}: {self._why}")
        start, end = self._found[0][0], self._found[-1][1]
        first = begins_at(self._copy.read(start, 65_536).partition(b"\n")[0])[0] if start else 0
        count = first
        for line in numbered(read_lines(self._copy, start, end), first, f"{self._s3.where}/{self._folder}"):
            count = line.seq + 1
            yield line
        newest = self._copy.checkpoints()[-1:]
        if newest and int(newest[0]) > count:
            raise Damaged(
                f"{self._s3.where}/{self._folder}: its entries end before entry {count}, and its checkpoint signs "
                f"{int(newest[0])}: the last pieces are gone"
            )

    def undamaged(self, line: Line, ours: bytes) -> str:
        """Whether an older version of the object that holds it is as it was written: a bucket that locks has it yet."""
        from immured.ledger.exports.pieces import piece_name

        offset = int(line.where.rpartition(" ")[2])
        begins, ends = next(one for one in self._found if one[0] <= offset < one[1])
        name = f"{self._folder}/{piece_name(begins, ends)}"
        for version in self._s3.versions(name):
            if version.latest or version.deleted:
                continue
            if (self._s3.get(name, version.id) or b"")[offset - begins :].startswith(ours + b"\n"):
                return f"{name} was overwritten: its version {version.id} has the line as it is here"
        return ""


def find(path: Path, origin: str) -> Kept:
    """What lies there. Raises OSError; ConfigurationError `not_comparable`."""
    if path.is_dir():
        return _in_directory(path, origin)
    with path.open("rb") as file:
        begins = file.read(MAX_PROOF + 1)
    if begins.startswith(b"{"):
        return _Jsonl(path)
    try:
        if begins.startswith(_PROOF):
            proof = Proof.parse(begins)
            return Heads(unverified(proof.note), str(path), Line(proof.seq, proof.line, str(path)))
        return Heads(unverified(begins), str(path))
    except (ProofError, NoteError) as error:
        raise _not_comparable(str(path), str(error)) from None


def _in_directory(path: Path, origin: str) -> Kept:
    if (path / LOG).exists():
        return _Stream(path)
    if (path / CHECKPOINT).exists():
        return _tiles_in(path)
    folder = path / folder_of(origin)
    if folder.is_dir():
        return _in_directory(folder, origin)
    witness = path / "logs" / hashlib.sha256(origin.encode()).hexdigest() / CHECKPOINT
    if witness.exists():
        return find(witness, origin)
    return _elsewhere(str(path), origin, [one.name for one in path.iterdir()])


def _tiles_in(path: Path) -> Kept:
    def read(name: str) -> bytes | None:
        try:
            return (path / name).read_bytes()
        except FileNotFoundError:
            return None

    return _Tiles(str(path), read)


def find_in_s3(s3: S3, origin: str) -> Kept:
    """The same in S3. Raises ExportError, ConfigurationError."""
    folder = folder_of(origin)
    pieces = _Pieces(s3, folder)
    if pieces.there:
        return pieces
    if s3.get(f"{folder}/{CHECKPOINT}") is not None:
        return _Tiles(f"{s3.where}/{folder}", lambda name: s3.get(f"{folder}/{name}"))
    return _elsewhere(s3.where, origin, s3.folders())


def _elsewhere(where: str, origin: str, names: list[str]) -> Elsewhere:
    origins = tuple(sorted(f"immured/{one}" for one in names if _FOLDER.fullmatch(one)))
    if not origins:
        raise _not_comparable(where, f"it holds nothing of {origin}, nor of another ledger")
    return Elsewhere(where, origins)


def _not_comparable(where: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        "not_comparable",
        f"{where}: {why}",
        "name a copy, tiles, JSON lines, a checkpoint, a proof, or a witness's state",
    )
