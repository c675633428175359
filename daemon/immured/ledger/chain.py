"""What a reader of the ledger knows after `size` good lines, and what it demands of the next. No I/O."""

from __future__ import annotations

import re
from typing import Final

from immured.ledger.checkpoint import origin_of
from immured.ledger.entry import NO_LEAF, Entry, LineError, parse_line
from immured.ledger.entry_types import LEDGER_CREATED
from immured.ledger.tree import Frontier

__all__ = ["BrokenLink", "Chain"]

_RANDOM: Final = re.compile(r"[0-9a-f]{32}")


class BrokenLink(LineError):
    """A good line whose `prev` is not the leaf of the line before: one of the two was altered."""

    def __init__(self, entry: Entry, expected: str) -> None:
        super().__init__("broken_chain", f"prev is {entry.prev}", f"{expected}, the leaf of the line before")
        self.entry = entry


class Chain:
    """The entries so far, as far as the next one depends on them: a count, a leaf, the tree's frontier."""

    def __init__(self) -> None:
        self.tree = Frontier()
        self.last_leaf = NO_LEAF
        self.last_ts = ""
        self.origin = ""

    @property
    def size(self) -> int:
        return self.tree.size

    def check(self, line: bytes) -> Entry:
        """Read the next line (without its newline). Raises LineError; changes nothing."""
        entry = parse_line(line)
        if entry.seq != self.size:
            raise LineError("bad_seq", f"seq is {entry.seq}", str(self.size))
        if entry.prev != self.last_leaf:
            raise BrokenLink(entry, self.last_leaf)
        if entry.seq == 0:
            random = entry.data.get("random")
            if entry.type != LEDGER_CREATED or not isinstance(random, str) or _RANDOM.fullmatch(random) is None:
                raise LineError("bad_first_line", f"line 0 is {entry.type}", "ledger.created with 16 random bytes")
        return entry

    def accept(self, entry: Entry) -> None:
        """Take an entry that `check` returned as the next."""
        if entry.seq == 0:
            self.origin = origin_of(entry.leaf)
        self.tree.append(entry.leaf)
        self.last_leaf = entry.leaf.hex()
        self.last_ts = entry.ts
