"""What a reader of the ledger knows after `size` good lines, and what it demands of the next. No I/O."""

from __future__ import annotations

import re
from typing import Final

from immured.ledger.checkpoint import origin_of
from immured.ledger.entry import NO_LEAF, Entry, LineError, parse_line
from immured.ledger.entry_types import LEDGER_CREATED, LEDGER_ROTATED
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

    @classmethod
    def before(cls, entry: Entry) -> Chain:
        """What stood before a `ledger.rotated`, as that line has it: what the kept part of a ledger begins with.

        Whether it was so, only a checkpoint of that size can show. Raises LineError.
        """
        size, origin, roots = entry.data.get("size"), entry.data.get("origin"), entry.data.get("frontier")
        chain = cls()
        try:
            if entry.type != LEDGER_ROTATED or size != entry.seq or not isinstance(origin, str):
                raise ValueError
            if not isinstance(roots, list) or not all(isinstance(root, str) for root in roots):
                raise ValueError
            chain.tree = Frontier.resumed(entry.seq, [bytes.fromhex(str(root)) for root in roots])
        except ValueError:
            what = "of the tree it has neither root nor frontier" if entry.seq else "line 0"
            raise LineError("bad_rotation", f"{entry.type}: {what}", "what a ledger.rotated holds") from None
        chain.origin, chain.last_leaf, chain.last_ts = origin, entry.prev, entry.ts
        return chain

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
        elif entry.type == LEDGER_ROTATED:
            self._check_rotated(entry)
        return entry

    def _check_rotated(self, entry: Entry) -> None:
        """A ledger may be kept from such a line on: what it says of all before has to be so."""
        truth = {
            "origin": self.origin,
            "size": self.size,
            "root": self.tree.root().hex(),
            "frontier": [root.hex() for root in self.tree.roots()],
        }
        for name, value in truth.items():
            if entry.data.get(name) != value:
                raise LineError("bad_rotation", f"{name} is {str(entry.data.get(name))[:80]}", str(value)[:80])

    def accept(self, entry: Entry) -> None:
        """Take an entry that `check` returned as the next."""
        if entry.seq == 0:
            self.origin = origin_of(entry.leaf)
        self.tree.append(entry.leaf)
        self.last_leaf = entry.leaf.hex()
        self.last_ts = entry.ts
