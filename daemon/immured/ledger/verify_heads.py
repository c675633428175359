"""The signed heads that a ledger is verified against: which are signed, what they say, and which witnesses saw them.

A head is a checkpoint of the ledger's own folder, the same with witnesses' cosignatures, or one that somebody kept
elsewhere (an anchor): only of this last it is certain that whoever holds the host has not replaced it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from immured.ledger.checkpoint import (
    Checkpoint,
    CosignKey,
    NoteError,
    file_name,
    open_checkpoint,
    open_witnessed,
    unverified,
)
from immured.ledger.key_rotation import KeyHistory
from immured.ledger.recovery import checkpoint_names

__all__ = ["BadCheckpoint", "Heads", "Note", "Seen", "notes_of"]

_MAX_NOTE: Final = 65_536


@dataclass(frozen=True, slots=True)
class BadCheckpoint:
    """A checkpoint file that proves nothing: its name and what is wrong with it."""

    file: str
    message: str


@dataclass(frozen=True, slots=True)
class Note:
    """A file that should hold a checkpoint; in the ledger's folders its name is the size."""

    file: str
    """As it is called in what is said of it."""
    content: bytes
    name: str = ""
    """What the size has to be, as `file_name` writes it; empty for any."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The largest checkpoint that a witness cosigned, of those that are here, and when (seconds since 1970)."""

    witness: CosignKey
    size: int
    time_s: int


@dataclass(frozen=True, slots=True)
class Heads:
    """What the notes say: good heads by size, those that prove nothing, and what each known witness saw."""

    by_size: dict[int, Checkpoint]
    bad: tuple[BadCheckpoint, ...]
    seen: tuple[Seen, ...]

    @classmethod
    def read(
        cls,
        notes: Iterable[Note],
        keys: KeyHistory,
        witnesses: Sequence[CosignKey],
        first: int = 0,
        leads: Callable[[Checkpoint, Checkpoint], bool] = lambda _older, _newer: False,
    ) -> Heads:
        """Whether they are those of the ledger's lines, only its lines can show; and of lines that are kept no more,
        those before `first`, nothing does but a proof that one head goes on from another, which `leads` is asked for.
        """
        by_size: dict[int, Checkpoint] = {}
        bad: list[BadCheckpoint] = []
        seen: dict[CosignKey, Seen] = {}
        good: list[tuple[Note, Checkpoint, list[Seen]]] = []
        for note in notes:
            try:
                head, cosigned = _opened(note, keys, witnesses)
                if by_size.setdefault(head.size, head) != head:
                    other = by_size[head.size].root.hex()
                    raise NoteError(f"the ledger signed two roots of size {head.size}: {head.root.hex()} and {other}")
            except NoteError as error:
                bad.append(BadCheckpoint(note.file, str(error)))
                continue
            good.append((note, head, cosigned))
        bad += _superseded(good, keys)
        begins = by_size.get(first)
        for note, head, cosigned in good:
            if head.size < first and (cosigned or not note.name) and not (begins and leads(head, begins)):
                if not note.name:
                    what = f"it is of {head.size} entries, and what is kept begins with entry {first}: nothing here"
                    bad.append(BadCheckpoint(note.file, what + " shows that one goes on from the other"))
                continue
            for one in cosigned:
                if one.witness not in seen or (seen[one.witness].size, seen[one.witness].time_s) < (
                    one.size,
                    one.time_s,
                ):
                    seen[one.witness] = one
        return cls(by_size, tuple(bad), tuple(seen.values()))

    def witnessed(self, require: int) -> int:
        """How many entries at least so many witnesses saw: a checkpoint is one of all before it, too. Two names of one
        public key are one witness."""
        largest: dict[bytes, int] = {}
        for one in self.seen:
            largest[one.witness.public] = max(one.size, largest.get(one.witness.public, 0))
        sizes = sorted(largest.values(), reverse=True)
        return sizes[require - 1] if 0 < require <= len(sizes) else 0


def _opened(note: Note, keys: KeyHistory, witnesses: Sequence[CosignKey]) -> tuple[Checkpoint, list[Seen]]:
    size = unverified(note.content).size
    if note.name not in ("", file_name(size)):
        raise NoteError(f"it is of size {size}")
    if not witnesses:
        return keys.open(note.content), []
    try:
        found = open_witnessed(note.content, keys.in_force(size), witnesses)
    except NoteError:
        keys.open(note.content)  # says more, where it is the ledger's own key
        raise
    return found.checkpoint, [Seen(one.key, size, one.time_s) for one in found.cosignatures]


def _superseded(good: Sequence[tuple[Note, Checkpoint, list[Seen]]], keys: KeyHistory) -> list[BadCheckpoint]:
    """The largest head of a ledger's folder, where the newest of its keys did not sign it."""
    note, head = max(
        ((one, head) for one, head, _ in good if one.name), key=lambda one: one[1].size, default=(None, None)
    )
    newest = None if head is None else keys.newest(head.origin)
    if note is None or newest is None:
        return []
    try:
        open_checkpoint(note.content, (newest,))
    except NoteError:
        what = "the newest of the given keys did not sign it, and there is none after it: an older copy than the keys "
        return [BadCheckpoint(note.file, what + "are, or made by whoever has the key that was replaced")]
    return []


def notes_of(folder: Path, prefix: str = "") -> list[Note]:
    """Every checkpoint file of a folder, smallest first. `prefix` is what their names are told with. Raises OSError."""
    names = checkpoint_names(path.name for path in folder.iterdir())
    return [Note(prefix + name, read_note(folder / name), name) for name in names]


def read_note(path: Path) -> bytes:
    """At most one byte more than a note may have; no FIFO or device is waited for. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return os.read(fd, _MAX_NOTE + 1)
    finally:
        os.close(fd)
