"""How far the ledger is durable, and who waits for it: threads, and event loops with one wake-up each per batch."""

from __future__ import annotations

from typing import NamedTuple

from immured._ledger_write import Completion, Pending
from immured.errors import Refused

__all__ = ["Completion", "Pending", "Receipt", "again"]


class Receipt(NamedTuple):
    """Where an entry stands: its index and its 32-byte leaf hash."""

    seq: int
    leaf: bytes


def again(failure: Refused) -> Refused:
    """A refusal of its own for everyone who hears of it: exceptions collect tracebacks."""
    return Refused(failure.code, failure.message, failure.remedy, details=failure.details)
