"""Batches that the last daemon did not see to their end, as a starting one reads them off the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from immured.identity.replay import Claim
from immured.ledger import Entry, Ledger, Pending, entry_types
from immured.service.batches.arguments import MAX_RUNS
from immured.service.batches.records import ranges
from immured.wire.messages import Receipt

__all__ = ["LostBatches"]

_OVER: Final = (entry_types.BATCH_FINISHED, entry_types.BATCH_LOST)


@dataclass(slots=True)
class _Open:
    name: str
    runs: int
    claim: Claim | None
    told: set[int] = field(default_factory=set)


class LostBatches:
    """Feed it every entry whose type begins with `batch.`; `restore` takes an intent's nonce into the replay record."""

    def __init__(self, restore: Callable[[Entry], Claim | None]) -> None:
        self._restore = restore
        self._open: dict[int, _Open] = {}

    def visit(self, entry: Entry) -> None:
        """Take one entry."""
        data = entry.data
        intent = data.get("intent")
        if entry.type == entry_types.BATCH_ACCEPTED:
            name, runs = data.get("batch"), data.get("runs")
            if isinstance(name, str) and isinstance(runs, int):  # else it says more of the one before
                self._open[entry.seq] = _Open(name, min(runs, MAX_RUNS), self._restore(entry))
        elif isinstance(intent, int) and entry.type == entry_types.BATCH_PROGRESS and intent in self._open:
            outcomes = data.get("outcomes")
            rows = outcomes if isinstance(outcomes, list) else []
            told = [row.get("run") for row in rows if isinstance(row, dict)]
            self._open[intent].told.update(run for run in told if isinstance(run, int))
        elif isinstance(intent, int) and entry.type in _OVER:
            found = self._open.pop(intent, None)
            if found is not None and found.claim is not None:
                found.claim.outcome = Receipt(entry.seq, entry.leaf)

    def tell(self, ledger: Ledger, actor: Mapping[str, object]) -> list[tuple[Claim | None, Pending]]:
        """A `batch.lost` for each that is open, oldest first, and whose claim it settles. Raises Refused."""
        told = []
        for intent, found in self._open.items():
            data = {
                "batch": found.name,
                "intent": intent,
                "reason": "the daemon ended before the batch did",
                "unknown": ranges(run for run in range(found.runs) if run not in found.told),
            }
            told.append((found.claim, ledger.entry(entry_types.BATCH_LOST, actor, data, closing=True)))
        return told
