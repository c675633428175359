"""Proofs made for clients: beside the daemon's work, a few at a time, from the stored hashes alone.

Where no checkpoint covers an entry yet, one is signed for all who wait, at most one a second. Where the stored hashes
are missing or wrong, nobody waits for all lines to be read: that is `immure ledger prove`'s, and the ledger makes them
anew by itself.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from immured.ledger import Ledger
from immured.ledger.entry import Entry, parse_line
from immured.ledger.proof import Proof
from immured.ledger.proving import NoProof, Prover

__all__ = ["Proofs"]

_AT_ONCE: Final = 2
_BETWEEN_S: Final = 1.0


class Proofs:
    """Of one ledger, whose files are in `directory`."""

    def __init__(self, ledger: Ledger, directory: Path) -> None:
        self._ledger, self._directory = ledger, directory
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._signing = asyncio.Lock()
        self._signed_at = float("-inf")

    async def entries(self, seq: int) -> tuple[Entry, ...]:
        """Entry `seq`, and the one by its `intent` if it names one. Raises NoProof, LineError, OSError."""
        async with self._slots:
            return await asyncio.to_thread(self._entries, seq)

    async def prove(self, seq: int) -> Proof:
        """Of an entry that is durable. Raises NoProof, OSError."""
        await self._covered(seq)
        async with self._slots:
            try:
                return await asyncio.to_thread(self._proven, seq)
            except NoProof:
                if self._ledger.tree is not None and not self._ledger.tree.store.behind:
                    self._ledger.tree.amiss()
                raise

    async def newest(self) -> tuple[bytes, bytes | None]:
        """The newest checkpoint, and the newest that witnesses cosigned. Raises NoProof, OSError."""
        async with self._slots:
            return await asyncio.to_thread(self._newest)

    async def _covered(self, seq: int) -> None:
        loop = asyncio.get_running_loop()
        while self._ledger.durable.signed <= seq:
            async with self._signing:
                if self._ledger.durable.signed > seq:
                    return
                await asyncio.sleep(max(0.0, self._signed_at + _BETWEEN_S - loop.time()))
                self._signed_at = loop.time()
                if not await asyncio.to_thread(self._ledger.cover, seq):
                    raise NoProof(f"no checkpoint could be signed that covers entry {seq}")

    def _entries(self, seq: int) -> tuple[Entry, ...]:
        with Prover.open(self._directory, stored_only=True) as prover:
            first = parse_line(prover.line(seq))
            intent = first.data.get("intent")
            if isinstance(intent, int) and 0 <= intent < seq:
                return first, parse_line(prover.line(intent))
            return (first,)

    def _proven(self, seq: int) -> Proof:
        with Prover.open(self._directory, stored_only=True) as prover:
            return prover.prove(seq)

    def _newest(self) -> tuple[bytes, bytes | None]:
        with Prover.open(self._directory, stored_only=True) as prover:
            return prover.heads.signed(), prover.heads.cosigned()
