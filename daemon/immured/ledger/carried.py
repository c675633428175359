"""`carried-<first>.jsonl`: the lines of retired segments that a start still needs, as they stood.

The file's name is the first entry that is kept. A start believes it when the `ledger.retired` that names it, which is
kept, has its digest; or, line by line, where the signed `resume` has their leaf hashes. Sans-I/O.

The first row says {v, first, horizon_ms}; each that follows {seq, offset, needs, line}: see `keeping.Kept`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from immured.ledger.entry import Entry, LineError, parse_line
from immured.ledger.keeping import Kept, Need

__all__ = ["Carried", "CarriedError", "carried_name", "encode"]


class CarriedError(ValueError):
    """It is not what was written, and why."""


def carried_name(first: int) -> str:
    """The file for a ledger that is kept from entry `first` on."""
    return f"carried-{first:020d}.jsonl"


def encode(first: int, horizon_ms: int, lines: Iterable[tuple[Kept, bytes]]) -> bytes:
    """The file's content: each line with what it is needed for. `horizon_ms`: see `keeping.Snapshot`."""
    rows: list[dict[str, object]] = [{"v": 1, "first": first, "horizon_ms": horizon_ms}]
    rows += (
        {"seq": kept.seq, "offset": kept.offset, "needs": int(kept.needs), "line": line.decode()}
        for kept, line in lines
    )
    return b"".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for row in rows)


@dataclass(frozen=True, slots=True)
class Carried:
    """What such a file holds."""

    sha256: str
    horizon_ms: int
    lines: Sequence[tuple[Kept, Entry]]
    """In the ledger's order; their places are as the file says, their leaf hashes as the lines have them."""
    _by_offset: dict[int, bytes] = field(default_factory=dict)

    @classmethod
    def decode(cls, content: bytes, first: int) -> Carried:
        """Read it. Raises CarriedError."""
        try:
            head, *rows = [json.loads(row) for row in content.decode().removesuffix("\n").split("\n")]
            if head.keys() != {"v", "first", "horizon_ms"} or (head["v"], head["first"]) != (1, first):
                raise CarriedError(f"it is not of a ledger that is kept from entry {first} on")
            lines = [_row(row) for row in rows]
        except CarriedError:
            raise
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise CarriedError(f"it is not of this format ({error})") from None
        seqs = [kept.seq for kept, _ in lines]
        if seqs != sorted(set(seqs)) or (seqs and seqs[-1] >= first):
            raise CarriedError("its lines are not in order")
        sha256 = hashlib.sha256(content).hexdigest()
        return cls(sha256, int(head["horizon_ms"]), lines, {kept.offset: entry.line for kept, entry in lines})

    def at(self, offset: int) -> bytes | None:
        """The line that began at this byte of the stream, without its newline."""
        return self._by_offset.get(offset)


def _row(row: dict[str, Any]) -> tuple[Kept, Entry]:
    try:
        entry = parse_line(row["line"].encode())
    except LineError as error:
        raise CarriedError(f"entry {row['seq']}: {error}") from None
    if entry.seq != row["seq"]:
        raise CarriedError(f"where entry {row['seq']} should be is entry {entry.seq}")
    offset, needs = int(row["offset"]), int(row["needs"])
    if not 0 < needs <= int(Need.ALL):
        raise CarriedError(f"entry {entry.seq} is needed for {needs}, which is nothing")
    return Kept(entry.seq, offset, entry.leaf, needs), entry
