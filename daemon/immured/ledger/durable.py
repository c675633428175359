"""What is durable, and what of that is signed. For whoever has the writer's turn: one at a time, no lock of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol

from immured.ledger.chain import Chain
from immured.ledger.checkpoint import Checkpoint, file_name
from immured.ledger.exports.head import Head
from immured.ledger.recovery import CHECKPOINTS
from immured.ledger.storage import Storage

__all__ = ["CHECKPOINT_ENTRIES", "CHECKPOINT_SECONDS", "Durable", "Follower", "Signs"]

CHECKPOINT_ENTRIES: Final = 1_024
CHECKPOINT_SECONDS: Final = 300.0
_RETRY_SECONDS: Final = 30.0
_PAUSE_SECONDS: Final = 1.0


class Signs(Protocol):
    """Whatever signs checkpoints, with one key or several."""

    def sign(self, checkpoint: Checkpoint) -> bytes:
        """The signed note."""


class Follower(Protocol):
    """Who keeps something of his own beside the lines. Called on the writer's turn: nothing here may raise, or wait
    for anybody."""

    def extend(self, leaves: bytes) -> None:
        """The leaf hashes, 32 bytes each, of the entries that are durable now, in order."""

    def signed(self, head: Head, note: bytes) -> None:
        """So far it is signed: the checkpoint, whose file is durable, is `note`."""

    def close(self) -> None:
        """The ledger is closed; its last head was signed, if it could be."""


class Durable:
    """The tree over what is durable, its checkpoints, and those who follow."""

    def __init__(
        self,
        storage: Storage,
        chain: Chain,
        end: int,
        signed: int,
        signer: Signs,
        checkpoint_entries: int,
        checkpoint_seconds: float,
    ) -> None:
        self.origin = chain.origin
        self.tree = chain.tree.copy()
        self.end = end
        """Where the durable lines end in the ledger's one stream."""
        self.signed = signed
        """Size of the newest checkpoint; 0 for none."""
        self.signer = signer
        self.failure = ""
        """Why the newest checkpoint is older than it should be."""
        self.followers: list[Follower] = []
        self.followed = True
        """They were told of all; False once one of them has failed: then what any of them has may lack some."""
        self.head = Head(chain.size, end) if signed == chain.size else None
        self.covered: tuple[Checkpoint, int] | None = None
        """The newest that was signed here, or read; and where its last line ends."""
        self._told: list[Callable[[Head], None]] = []
        self._storage = storage
        self._entries, self._seconds = checkpoint_entries, checkpoint_seconds
        self._due = time.monotonic()
        self.pause = _PAUSE_SECONDS
        """Seconds between two checkpoints at least, however many entries come: each is four syncs that they await."""
        self._again = 0.0

    def on_head(self, told: Callable[[Head], None]) -> None:
        """Have `told` called with each new head, and with the present one now. On any thread."""
        self._told.append(told)
        if self.head is not None:
            told(self.head)

    def extend(self, leaves: bytes, length: int) -> None:
        """These entries, in order, of which these are the leaf hashes, `length` bytes together, are durable."""
        if self.tree.size == self.signed:
            self._due = time.monotonic() + self._seconds
        self.tree.extend(leaves)
        self.end += length

    def follow(self, leaves: bytes) -> None:
        """The same entries, for those who follow. Whoever waits for them was told before."""
        told, self.followed = self.followed, False
        for one in self.followers:
            one.extend(leaves)
        self.followed = told

    def rest(self) -> float | None:
        """Between batches: sign when it is due; the seconds until it will be, None for never."""
        fresh = self.tree.size - self.signed
        if not fresh:
            return None
        if fresh >= self._entries and not self.failure:
            self._due = min(self._due, self._again)
        if time.monotonic() >= self._due:
            self.sign()
        return None if self.tree.size == self.signed else max(0.0, self._due - time.monotonic())

    def sign(self) -> bool:
        """Sign the tree of what is durable, unless it is signed. A failure is noted and tried again later: the entries
        are safe without. Whether it is signed now."""
        size = self.tree.size
        if size == self.signed:
            return True
        covered = Checkpoint(self.origin, size, self.tree.root())
        note = self.signer.sign(covered)
        try:
            self._storage.write_whole(f"{CHECKPOINTS}/{file_name(size)}", note)
        except OSError as error:
            self.failure = f"checkpoint {size}: {error.strerror}"
            self._due = time.monotonic() + min(_RETRY_SECONDS, self._seconds)
            return False
        self.signed, self.failure = size, ""
        self._again = time.monotonic() + self.pause
        self.covered = covered, self.end
        self.head = head = Head(size, self.end)
        for one in self.followers:
            one.signed(head, note)
        for told in self._told:
            told(head)
        return True

    def close(self) -> None:
        """Nothing comes any more."""
        for one in self.followers:
            one.close()
