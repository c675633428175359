"""Which keys sign a ledger's checkpoints, and since when: the ledger says itself how one took another's place.

A `ledger.key_rotated` entry names the old verifier key and the new one; the old one's private half signed the new
one's text. From the first checkpoint that covers the entry on the new key has to have signed, and the old one counts no
more. The first one after it is signed by both: whoever knows only the old key reads on from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from immured.ledger.checkpoint import Checkpoint, NoteError, Signer, VerifierKey, open_checkpoint, unverified
from immured.ledger.entry import Entry, LineError, parse_line
from immured.ledger.entry_types import LEDGER_KEY_ROTATED
from immured.wire.envelope import pae

__all__ = ["ROTATION", "KeyHistory", "KeyRotation"]

ROTATION: Final = "application/vnd.immured.ledger-key.v1"
"""The DSSE payload type under which the old key signs the new one's vkey."""


@dataclass(frozen=True, slots=True)
class KeyRotation:
    """What an entry says: `new` takes the place of `old`, which signed that."""

    old: VerifierKey
    new: VerifierKey
    signature: bytes

    @classmethod
    def made(cls, old: Signer, new: VerifierKey) -> KeyRotation:
        """By the old key's private half."""
        return cls(old.verifier, new, old.raw(pae(ROTATION, new.encode().encode())))

    def to_map(self) -> dict[str, object]:
        """The entry's `data`."""
        return {"old": self.old.encode(), "new": self.new.encode(), "signature": self.signature.hex()}

    @classmethod
    def from_map(cls, data: Mapping[str, object]) -> KeyRotation:
        """Read an entry's `data`, and check the signature; whether the old key is the ledger's is not known here.
        Raises NoteError."""
        old, new, signature = (data.get(name) for name in ("old", "new", "signature"))
        if not (isinstance(old, str) and isinstance(new, str) and isinstance(signature, str)):
            raise NoteError("a rotation of keys has `old`, `new` and `signature`")
        try:
            made = cls(VerifierKey.parse(old), VerifierKey.parse(new), bytes.fromhex(signature))
        except NoteError:
            raise
        except ValueError:
            raise NoteError("the signature of a rotation of keys is not hexadecimal") from None
        if made.old.name != made.new.name:
            raise NoteError(f"a rotation of keys goes from {made.old.name} to {made.new.name}")
        if not made.old.verify(made.signature, pae(ROTATION, new.encode())):
            raise NoteError("a rotation of keys is not signed by the old key")
        return made


class KeyHistory:
    """The keys that one knows of a ledger, as its entries change them. `take` them in order, then ask."""

    def __init__(self, keys: Iterable[VerifierKey]) -> None:
        self._given = tuple(keys)
        self._keys = dict.fromkeys(self._given, 0)
        """Since which size each counts."""
        self._until: dict[VerifierKey, int] = {}
        """Up to which size each counts, where another took its place."""

    @property
    def known(self) -> tuple[VerifierKey, ...]:
        """All of them, those given first."""
        return tuple(self._keys)

    def take(self, entry: Entry) -> KeyRotation | None:
        """The next entry. What it rotated, if its type is that one and the old key is known and in its place.

        Raises NoteError for a `ledger.key_rotated` that is none."""
        if entry.type != LEDGER_KEY_ROTATED:
            return None
        made = KeyRotation.from_map(entry.data)
        if made.old not in self._keys or made.old in self._until:
            return None
        if made.new in self._until or made.new == made.old:
            raise NoteError("a rotation of keys goes back to one that was replaced")
        self._until[made.old] = entry.seq
        self._keys[made.new] = entry.seq + 1
        return made

    def read(self, lines: bytes) -> None:
        """Take `ledger.key_rotated` lines that somebody handed over, one after another. Raises NoteError."""
        for line in lines.splitlines():
            try:
                entry = parse_line(line)
            except LineError as error:
                raise NoteError(f"no ledger.key_rotated entry: {error}") from None
            if self.take(entry) is None:
                raise NoteError(f"entry {entry.seq} ({entry.type}) rotates no key that is known and in its place")

    def newest(self, origin: str) -> VerifierKey | None:
        """The last of several keys of this ledger that were given, if no entry says that another took its place: the
        newest head is its to sign. Else an older one could go on signing for whoever leaves out that it was replaced.
        """
        own = [key for key in self._given if key.name == origin]
        return own[-1] if len(set(own)) > 1 and own[-1] not in self._until else None

    def in_force(self, size: int) -> tuple[VerifierKey, ...]:
        """The keys that may sign a checkpoint of this size."""
        return tuple(key for key, since in self._keys.items() if since <= size and size <= self._until.get(key, size))

    def open(self, note: bytes) -> Checkpoint:
        """Verify and read a checkpoint, by the keys that are in force at its size. Raises NoteError."""
        size = unverified(note).size
        keys = self.in_force(size)
        try:
            return open_checkpoint(note, keys)
        except NoteError:
            if len(keys) < len(self._keys):
                open_checkpoint(note, self._keys)  # says what is wrong, where it is not that
                raise NoteError(f"it was signed by a key that does not count at size {size}") from None
            raise
