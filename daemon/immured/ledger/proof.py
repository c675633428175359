"""Proofs as files: that one entry is in a ledger (c2sp.org/tlog-proof), and that one checkpoint goes on from another.

Both hold all that it takes to check them but the keys: the first the entry's very line, as its `extra`; both the newer
checkpoint, as the ledger signed and witnesses cosigned it. The second has the form in which a witness is asked to
cosign (c2sp.org/tlog-witness, `add-checkpoint`).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from immured.ledger.checkpoint import (
    Checkpoint,
    CosignKey,
    NoteError,
    Witnessed,
    open_witnessed,
    origin_of,
    unverified,
)
from immured.ledger.entry import MAX_LINE, Entry, LineError, leaf_hash, parse_line
from immured.ledger.key_rotation import KeyHistory
from immured.ledger.merkle import is_consistent, is_included
from immured.ledger.note_keys import strict_b64

__all__ = ["MAX_PROOF", "Consistency", "Proof", "ProofError", "Proven"]

MAX_PROOF: Final = 256 << 10
"""Bytes of a proof: an entry of 65,535 in base64, 63 hashes, a note of 65,536."""

_FIRST: Final = "c2sp.org/tlog-proof@v1"
_MAX_PATH: Final = 63  # RFC 6962 trees of 64 bits, and a size is below 2**53
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,15}")


class ProofError(ValueError):
    """What is no proof, or proves something else."""


@dataclass(frozen=True, slots=True)
class Proven:
    """What a proof shows: this entry is in the ledger of that checkpoint, which those witnesses cosigned."""

    entry: Entry
    witnessed: Witnessed
    proof: Proof
    """What shows it: `encode` makes it a file, for others."""

    @property
    def checkpoint(self) -> Checkpoint:
        return self.witnessed.checkpoint


@dataclass(frozen=True, slots=True)
class Proof:
    """That `line` (without its newline) is entry `seq` of the ledger whose checkpoint is `note`."""

    seq: int
    line: bytes
    path: tuple[bytes, ...]
    note: bytes

    def encode(self) -> bytes:
        """The file."""
        extra = base64.b64encode(self.line).decode()
        head = f"{_FIRST}\nextra {extra}\nindex {self.seq}\n"
        return head.encode() + _hashes(self.path) + b"\n" + self.note

    @classmethod
    def parse(cls, raw: bytes) -> Proof:
        """Read a file; nothing of it is checked yet. Raises ProofError."""
        head, note = _halves(raw)
        if head[:1] != [_FIRST]:
            raise ProofError(f"its first line is not {_FIRST}")
        if len(head) < 2 or not head[1].startswith("extra "):
            raise ProofError("its second line is not `extra` with the entry")
        if len(head) < 3 or not head[2].startswith("index "):
            raise ProofError("its third line is not `index` with the entry's number")
        line = _raw(head[1][6:], "the entry")
        return cls(_number(head[2][6:], "the entry's number"), line, _path(head[3:]), note)

    def check(self, keys: KeyHistory, witnesses: Iterable[CosignKey] = (), require: int = 0) -> Proven:
        """What it shows to whoever trusts these keys, and demands so many of these witnesses. Raises ProofError."""
        if len(self.line) > MAX_LINE:
            raise ProofError(f"its entry has over {MAX_LINE} bytes")
        try:
            entry = parse_line(self.line)
        except LineError as error:
            raise ProofError(f"its entry is none: {error}") from None
        if entry.seq != self.seq:
            raise ProofError(f"its entry is {entry.seq}, and its index {self.seq}")
        opened = _opened(self.note, keys, witnesses, require)
        head = opened.checkpoint
        if self.seq >= head.size:
            raise ProofError(f"entry {self.seq} is not below a checkpoint of size {head.size}")
        leaf = leaf_hash(self.line)
        if not is_included(leaf, self.seq, head.size, self.path, head.root):
            raise ProofError(f"entry {self.seq} is not what stands there under the checkpoint of size {head.size}")
        if self.seq == 0 and origin_of(leaf) != head.origin:
            raise ProofError(f"its entry begins the ledger {origin_of(leaf)}, its checkpoint is of {head.origin}")
        return Proven(entry, opened, self)


@dataclass(frozen=True, slots=True)
class Consistency:
    """That the ledger whose checkpoint is `note` begins with the `old` entries of an older checkpoint."""

    old: int
    path: tuple[bytes, ...]
    note: bytes

    def encode(self) -> bytes:
        """The file, and the body of a request to a witness."""
        return f"old {self.old}\n".encode() + _hashes(self.path) + b"\n" + self.note

    @classmethod
    def parse(cls, raw: bytes) -> Consistency:
        """Read one; nothing of it is checked yet. Raises ProofError."""
        head, note = _halves(raw)
        if not head or not head[0].startswith("old "):
            raise ProofError("its first line is not `old` with a size")
        return cls(_number(head[0][4:], "the older size"), _path(head[1:]), note)

    def check(
        self, older: bytes, keys: KeyHistory, witnesses: Iterable[CosignKey] = (), require: int = 0
    ) -> tuple[Checkpoint, Witnessed]:
        """The older checkpoint, which is the note `older`, and the newer one, where one goes on from the other.
        Witnesses are demanded of the newer one. Raises ProofError."""
        before, after = _opened(older, keys, (), 0).checkpoint, _opened(self.note, keys, witnesses, require)
        head = after.checkpoint
        if before.origin != head.origin:
            raise ProofError(f"one checkpoint is of {before.origin}, the other of {head.origin}")
        if before.size != self.old:
            raise ProofError(f"it goes on from size {self.old}, and the older checkpoint is of size {before.size}")
        if not is_consistent(before.size, before.root, head.size, head.root, self.path):
            raise ProofError(f"the ledger of size {head.size} does not begin with that of size {before.size}")
        return before, after


def _opened(note: bytes, keys: KeyHistory, witnesses: Iterable[CosignKey], require: int) -> Witnessed:
    try:
        head = keys.open(note)
        return open_witnessed(note, keys.in_force(head.size), witnesses, require)
    except NoteError as error:
        raise ProofError(f"its checkpoint: {error}") from None


def _halves(raw: bytes) -> tuple[list[str], bytes]:
    """The lines up to the first empty one, and what is after it, which is a checkpoint."""
    if len(raw) > MAX_PROOF:
        raise ProofError(f"it has over {MAX_PROOF} bytes")
    head, blank, note = raw.partition(b"\n\n")
    if not blank:
        raise ProofError("it has no empty line before a checkpoint")
    try:
        unverified(note)
        return head.decode().split("\n"), note
    except NoteError as error:
        raise ProofError(f"its checkpoint: {error}") from None
    except UnicodeDecodeError:
        raise ProofError("it is not UTF-8") from None


def _hashes(path: Sequence[bytes]) -> bytes:
    return b"".join(base64.b64encode(one) + b"\n" for one in path)


def _path(lines: Sequence[str]) -> tuple[bytes, ...]:
    if len(lines) > _MAX_PATH:
        raise ProofError(f"it has over {_MAX_PATH} hashes")
    path = tuple(_raw(line, "a hash") for line in lines)
    if any(len(one) != 32 for one in path):
        raise ProofError("a hash is not of 32 bytes")
    return path


def _raw(text: str, what: str) -> bytes:
    try:
        return strict_b64(text, what)
    except NoteError as error:
        raise ProofError(str(error)) from None


def _number(text: str, what: str) -> int:
    if _NUMBER.fullmatch(text) is None:
        raise ProofError(f"{what} is {text[:32]!r}, not a decimal number")
    return int(text)
