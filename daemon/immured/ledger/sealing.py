"""What makes an entry a line: its content encoded (no order needed), then its place (one after the other).

Both are done natively (native/core/ledger_entry.c), to the byte as entry.py says them in Python; what the native half
declines goes there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from immured._ledger_write import encode_members, seal_line
from immured.ledger.entry import MAX_FRAME, MAX_LINE, Body, build_line, check_type, encode_body, leaf_hash
from immured.ledger.timestamps import timestamp

__all__ = ["BUDGETS", "encode", "seal"]

BUDGETS: Final[dict[str, int]] = {}
"""Types' names that were looked at, and how long the members beside each may be. They are the code's own."""


def encode(type_: str, actor: Mapping[str, object], data: Mapping[str, object]) -> bytes:
    """The members of an entry's `Body`. Raises ValueError, as `encode_body` does."""
    budget = BUDGETS.get(type_)
    if budget is None:
        check_type(type_)
        budget = BUDGETS[type_] = MAX_LINE - MAX_FRAME - len(type_)
    members = encode_members(actor, data, budget)
    return members if members is not None else encode_body(type_, actor, data).members


def seal(seq: int, now_ns: int, type_: str, members: bytes, prev: bytes) -> tuple[bytes, bytes]:
    """The line at `seq`, its newline included, and its leaf hash. `members` is of `encode`, `prev` the 32-byte leaf of
    the line before."""
    sealed = seal_line(seq, now_ns, type_, members, prev)
    if sealed is not None:
        return sealed
    line = build_line(seq, timestamp(now_ns), Body(type_, members), prev.hex())
    return line + b"\n", leaf_hash(line)
