"""How another key takes the place of the one that signs an open ledger's checkpoints.

In this order, each step durable before the next: the new key's file; the ledger's entry; the verifier key beside the
old ones; a checkpoint that covers the entry, signed by both; the new key's file in the place of the old one's. A start
that finds a new key's file goes on from where a crash left it, or takes the file away if the ledger has no entry of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from immured.errors import Refused
from immured.ledger.checkpoint import Checkpoint, NoteError, Signer, VerifierKey, sign_checkpoint
from immured.ledger.durable import Durable
from immured.ledger.entry import LineError, parse_line
from immured.ledger.entry_types import LEDGER_KEY_ROTATED
from immured.ledger.key_rotation import KeyRotation
from immured.ledger.keys import KeyFiles
from immured.ledger.pending import Pending
from immured.ledger.reader import Readable, read_lines

__all__ = ["BothKeys", "Changing", "begin", "finish", "rotated_to"]

_MARK: Final = f'"type":"{LEDGER_KEY_ROTATED}"'.encode()


class BothKeys:
    """Signs while one key takes another's place: by the old one up to size `seq`, the entry's, and by both beyond."""

    def __init__(self, old: Signer, new: Signer, seq: int) -> None:
        self.verifier = old.verifier
        self.new, self._old, self.seq = new, old, seq

    def sign(self, checkpoint: Checkpoint) -> bytes:
        """The signed note."""
        both = (self._old, self.new) if checkpoint.size > self.seq else (self._old,)
        return sign_checkpoint(checkpoint, both)


class Changing(Protocol):
    """An open ledger, as far as its key can be changed."""

    durable: Durable

    def turn(self) -> AbstractContextManager[None]:
        """Nobody else writes, or signs, meanwhile."""

    def entry(self, type_: str, actor: Mapping[str, object], data: Mapping[str, object], /) -> Pending:
        """Queue an entry."""


def begin(
    ledger: Changing,
    files: KeyFiles,
    actor: Mapping[str, object],
    data: Mapping[str, object],
    generate: Callable[[], Ed25519PrivateKey] = Ed25519PrivateKey.generate,
) -> tuple[Pending, KeyRotation]:
    """Enter that a new key takes the old one's place; `finish` must follow once that is durable. `data` is what the
    entry says besides.

    Raises Refused `wrong_state` where the last change is not finished, `ledger_unavailable` where no entry is taken;
    OSError where the new key's file could not be written. Nothing has changed then.
    """
    new = generate()
    files_begun = False
    try:
        with ledger.turn():
            old = ledger.durable.signer
            if not isinstance(old, Signer):
                raise Refused(
                    "wrong_state",
                    "the ledger's last change of keys is not finished: no checkpoint has both signatures yet",
                    "see `immure status` for what keeps it from being signed",
                )
            files.begin(new)
            files_begun = True
            made = Signer(new, old.verifier.name)
            rotation = KeyRotation.made(old, made.verifier)
            ledger.durable.sign()  # what is before the entry is the old key's alone
            pending = ledger.entry(LEDGER_KEY_ROTATED, actor, {**data, **rotation.to_map()})
            ledger.durable.signer = BothKeys(old, made, pending.receipt.seq)
    except BaseException:
        if files_begun:
            files.discard()
        raise
    return pending, rotation


def finish(ledger: Changing, files: KeyFiles) -> bool:
    """Once the entry is durable: sign by both, and have the new key alone from then on. Whether that is done; if no
    checkpoint could be signed, both go on signing, and the next start sees to it. Raises OSError where a key's file
    could not be written."""
    with ledger.turn():
        both = ledger.durable.signer
        if not isinstance(both, BothKeys):
            return True
        files.publish(both.new.verifier)
        if not ledger.durable.sign() or ledger.durable.signed <= both.seq:
            return False
        files.finish()
        ledger.durable.signer = both.new
        return True


def rotated_to(log: Readable, start: int, end: int, key: VerifierKey) -> int | None:
    """The entry between these offsets by which this key took another's place, if there is one. Raises OSError."""
    found: int | None = None
    for _, line in read_lines(log, start, end):
        if _MARK not in line:
            continue
        try:
            entry = parse_line(line.removesuffix(b"\n"))
            if entry.type == LEDGER_KEY_ROTATED and KeyRotation.from_map(entry.data).new == key:
                found = entry.seq
        except (LineError, NoteError):
            continue
    return found
