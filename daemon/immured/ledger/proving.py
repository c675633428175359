"""How proofs are made from a ledger's files. What is made was checked: against the root that the checkpoint signs.

    with Prover.open(state / "ledger") as prover:
        prover.prove(7).encode()

The stored hashes are used where they are right. Where they are missing or wrong, all lines are read: seconds, where it
is a millisecond else.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

from immured.ledger.checkpoint import Checkpoint, NoteError, file_name, unverified
from immured.ledger.entry import MAX_LINE, LineError, leaf_hash, parse_line
from immured.ledger.merkle import is_consistent, is_included
from immured.ledger.proof import Consistency, Proof
from immured.ledger.recovery import CHECKPOINTS, checkpoint_names
from immured.ledger.segments import Files
from immured.ledger.tree_keeper import first_kept
from immured.ledger.tree_store import TREE, NotStored, TreeDirectory, TreeInMemory, TreeReader, TreeStore, Until

__all__ = ["WITNESSED", "Heads", "NoEntry", "NoProof", "NotSigned", "Prover", "line_at"]

WITNESSED: Final = "witnessed"
_CHUNK: Final = 1 << 16


class NoProof(LookupError):
    """There is none (yet): the message says why."""


class NotSigned(NoProof):
    """No checkpoint covers it yet."""


class NoEntry(NoProof):
    """It is not there, or not any more."""


class Heads:
    """The checkpoints of a directory: as the ledger signed them, and as witnesses cosigned them, where they did."""

    def __init__(self, checkpoints: Path, witnessed: Path | None) -> None:
        self._checkpoints, self._witnessed = checkpoints, witnessed

    def covering(self, size: int) -> bytes:
        """The newest that witnesses cosigned, of at least `size` entries; where there is none the newest of all.
        Raises NoProof, OSError."""
        for folder in (self._witnessed, self._checkpoints):
            names = _names(folder)
            if names and int(names[-1]) >= size and folder is not None:
                return (folder / names[-1]).read_bytes()
        raise NotSigned(f"no checkpoint covers entry {size - 1} yet")

    def of(self, size: int) -> bytes:
        """The one of exactly this size. Raises NoProof, OSError."""
        for folder in (self._witnessed, self._checkpoints):
            if folder is not None and (folder / file_name(size)).exists():
                return (folder / file_name(size)).read_bytes()
        raise NoProof(f"there is no checkpoint of size {size}: {self._near(size)}")

    def signed(self) -> bytes:
        """The newest of all. Raises NoProof, OSError."""
        return Heads(self._checkpoints, None).covering(1)

    def cosigned(self) -> bytes | None:
        """The newest that witnesses cosigned, if there is one. Raises OSError."""
        names = _names(self._witnessed)
        return (self._witnessed / names[-1]).read_bytes() if names and self._witnessed is not None else None

    def _near(self, size: int) -> str:
        sizes = [int(name) for name in _names(self._checkpoints)]
        near = [
            str(one) for one in (max((s for s in sizes if s < size), default=0), *[s for s in sizes if s > size][:1])
        ]
        return f"those next to it are {' and '.join(one for one in near if one != '0') or 'none'}"


def _names(folder: Path | None) -> list[str]:
    if folder is None:
        return []
    try:
        return checkpoint_names(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return []


def line_at(files: Files, tree: TreeReader, seq: int) -> bytes:
    """The line of entry `seq`, without its newline. Raises NoProof where it is not there, OSError."""
    if seq < files.first:
        raise NoEntry(f"entry {seq} is not kept any more: the ledger is kept from entry {files.first} on")
    part = files.before(seq)
    for place in sorted({max(tree.place(seq), (part.first, part.offset)), (part.first, part.offset)}, reverse=True):
        line = _walk(files, *place, seq)
        try:
            if line is not None and parse_line(line).seq == seq:
                return line
        except LineError:
            continue  # the first place was wrong, or the line is damaged
    raise NoEntry(f"the ledger has no entry {seq}")


def _walk(files: Files, at: int, offset: int, seq: int) -> bytes | None:
    """The line that is `seq - at` lines after the one at `offset`."""
    ahead, rest = seq - at, b""
    while chunk := files.read(offset, _CHUNK):
        offset += len(chunk)
        if ahead > (many := chunk.count(b"\n")):
            ahead, rest = ahead - many, chunk[chunk.rfind(b"\n") + 1 :] if many else rest + chunk
            if len(rest) > MAX_LINE:
                return None
            continue
        lines = (rest + chunk).split(b"\n")
        if ahead < len(lines) - 1:
            return lines[ahead]
        ahead, rest = ahead - (len(lines) - 1), lines[-1]
        if len(rest) > MAX_LINE:
            return None
    return None


class Prover:
    """Makes proofs of the ledger in a directory. For one thread."""

    @classmethod
    def open(cls, directory: Path, *, stored_only: bool = False) -> Prover:
        """Of `DIR/ledger`, or a copy of it. `stored_only`: where the stored hashes do not do there is no proof. Raises
        OSError."""
        heads = Heads(directory / CHECKPOINTS, directory / WITNESSED)
        return cls(Files.open(directory), heads, TreeDirectory(directory / TREE), stored_only=stored_only)

    def __init__(self, files: Files, heads: Heads, directory: TreeDirectory, *, stored_only: bool) -> None:
        self._files, self.heads, self._directory = files, heads, directory
        self._stored_only = stored_only
        self._stored = TreeReader(directory)
        self.read_all = False
        """The stored hashes did not do: every line had to be read."""

    def __enter__(self) -> Prover:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up the files."""
        self._files.close()
        self._directory.close()

    def line(self, seq: int) -> bytes:
        """Entry `seq`, without its newline. Raises NoProof, OSError."""
        return line_at(self._files, self._stored, seq)

    def prove(self, seq: int, note: bytes | None = None) -> Proof:
        """That entry `seq` is under this checkpoint, or the one that covers it best. Raises NoProof, OSError."""
        note = note or self.heads.covering(seq + 1)
        head = _head(note)
        if seq >= head.size:
            raise NoProof(f"entry {seq} is not below a checkpoint of size {head.size}")
        line = line_at(self._files, self._stored, seq)
        leaf = leaf_hash(line)
        for tree in self._trees(head):
            try:
                path = tree.inclusion(seq, head.size)
            except NotStored:
                continue
            if is_included(leaf, seq, head.size, path, head.root):
                return Proof(seq, line, tuple(path), note)
        raise NoProof(
            f"entry {seq} is not what was signed at size {head.size}; immure ledger verify names what is wrong"
        )

    def consistency(self, old: int, new: int | None = None) -> Consistency:
        """That the checkpoint of size `new`, or the one that covers the older best, goes on from that of size `old`.
        Raises NoProof, OSError."""
        before = _head(self.heads.of(old))
        note = self.heads.covering(max(old, 1)) if new is None else self.heads.of(new)
        head = _head(note)
        if old > head.size:
            raise NoProof(f"a ledger of size {head.size} does not begin with one of size {old}")
        for tree in self._trees(head):
            try:
                path = tree.consistency(old, head.size)
            except NotStored:
                continue
            if is_consistent(old, before.root, head.size, head.root, path):
                return Consistency(old, tuple(path), note)
        raise NoProof(f"the ledger signed at size {head.size} does not go on from the one signed at size {old}")

    def _trees(self, head: Checkpoint) -> Iterator[TreeReader]:
        """The stored hashes; then, made of all lines, those that they should be."""
        yield self._stored
        if self._stored_only:
            raise NoProof("the tree's stored hashes do not reach so far yet, or are wrong")
        self.read_all = True
        store = TreeStore(TreeInMemory())
        store.begin(head.size, head.root, head.size)
        try:
            first = first_kept(self._files)
        except ValueError as error:
            raise NoProof(str(error)) from None
        if store.catch_up(self._files, first, Until(head.size, self._files.size(), head.root)):
            yield store


def _head(note: bytes) -> Checkpoint:
    try:
        return unverified(note)
    except NoteError as error:
        raise NoProof(f"the checkpoint is none: {error}") from None
