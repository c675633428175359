"""Which lines a start must see again, and no others: what the daemon knows by its ledger grows with what it knows, and
not with the ledger. Sans-I/O; milliseconds since the epoch.

Whoever learns from the entries (a `Keeper`) says of each, when it is appended or read, what he needs it for and how
long. What is kept is place and leaf hash of a line; the line itself stays in the ledger. It is visited again only for
what it is still needed for: what else it said may be undone by lines that are not.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, Final, NamedTuple, Protocol

from immured._ledger_write import KeptLines
from immured.ledger.entry import Entry

__all__ = ["FOREVER", "Keep", "Keeper", "Keeping", "Kept", "Keyed", "Need", "Op", "Snapshot", "Tie"]

FOREVER: Final = (1 << 63) - 1
_RECORD: Final = struct.Struct(">QQ32s")
"""Of a line: index, offset in the ledger's stream, leaf hash."""
_BUCKET_MS: Final = 60_000


class Need:
    """What a line is needed for: bits, which are asked of every line that is read."""

    ACT: Final = 1
    """It is an intent that may be open, its outcome, or the only entry of a command that could be given again."""
    SAY: Final = 2
    """What it says is so until another entry says otherwise."""
    SEEN: Final = 4
    """Somebody was there, at that time."""
    COUNT: Final = 8
    """It is one of so many."""
    ALL: Final = 15


class Tie(IntEnum):
    """How an entry stands to the intent that it names."""

    NONE = 0
    PART = 1
    """Needed until that has its outcome."""
    FACT = 2
    """Needed as long as that one is."""
    OUTCOME = 3
    """Needed as long as that one is, which is open no more."""


class Op(Enum):
    """What an entry does to what is kept under a key."""

    REPLACE = 1
    """It takes the place of all that is kept under it, until `until`."""
    EXTEND = 2
    """It is kept as long as what is kept under it."""
    SEEN = 3
    """The same, of those that only do this the one with the latest time alone."""
    DROP = 4
    """Nothing under it is needed any more."""


class Keyed(NamedTuple):
    """Why a line is kept, or what it makes needless."""

    op: Op
    key: str
    until: int = FOREVER


class Keep(NamedTuple):
    """How long an entry is needed, for each `Need` by itself."""

    until: int = 0
    """Until then (`Need.ACT`), with all that is tied to it."""
    opens: bool = False
    """It is an intent: needed until an outcome names it at least."""
    tie: Tie = Tie.NONE
    intent: int = 0
    """The index of the one that it is tied to."""
    forever: bool = False
    """`Need.SAY`."""
    keyed: tuple[Keyed, ...] = ()
    """`Need.SAY`, `Need.SEEN`."""
    counts: int = 0
    """Until then (`Need.COUNT`)."""


class Keeper(Protocol):
    """Who learns from the ledger's entries."""

    @property
    def rules(self) -> str:
        """A name for how `keep` decides. What was kept by other rules is of no use: then every entry is visited."""

    def keep(self, type_: str, actor: Mapping[str, Any], data: Mapping[str, Any], /) -> Keep | None:
        """How long it is needed; None for not at all. Raises nothing, and is swift: it is asked of every entry.

        Of what is appended `actor` and `data` are as they were given, of what is read as JSON says them.
        """

    def visit(self, entry: Entry, needs: int = Need.ALL) -> None:
        """Take one entry, in their order, for what it is needed."""

    def forgotten(self, until_ms: int) -> None:
        """What was needed until then, or a shorter time, may not be visited."""


class Kept(NamedTuple):
    """A line that is needed, and what for."""

    seq: int
    offset: int
    leaf: bytes
    needs: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is kept at a size of the ledger: packed records in no order, by what they are needed for; of what is
    needed for a time by the minute until when. Of what was needed until `horizon_ms` some may be gone."""

    horizon_ms: int
    open: bytes
    acts: Mapping[int, bytes]
    says: bytes
    seen: bytes
    counts: Mapping[int, bytes]

    def __len__(self) -> int:
        """Records, of which several may be of one line."""
        pieces = (self.open, *self.acts.values(), self.says, self.seen, *self.counts.values())
        return sum(map(len, pieces)) // _RECORD.size

    def live(self, now_ms: int) -> tuple[list[Kept], int]:
        """What is needed now, in the ledger's order, and the horizon of what is not. Raises struct.error."""
        found: dict[int, Kept] = {}
        over = [self.horizon_ms]
        sections: tuple[tuple[int, Mapping[int, bytes]], ...] = (
            (Need.ACT, {FOREVER: self.open, **self.acts}),
            (Need.SAY, {FOREVER: self.says}),
            (Need.SEEN, {FOREVER: self.seen}),
            (Need.COUNT, self.counts),
        )
        for need, buckets in sections:
            for minute, packed in buckets.items():
                if minute * _BUCKET_MS <= now_ms:
                    over.append(minute * _BUCKET_MS)
                    continue
                for seq, offset, leaf in _RECORD.iter_unpack(packed):
                    before = found.get(seq)
                    found[seq] = Kept(seq, offset, leaf, need if before is None else need | before.needs)
        return [found[seq] for seq in sorted(found)], max(over)


class _Held:
    """What is kept under a key: those that began and extended it, and the last that was only seen."""

    __slots__ = ("packed", "seen", "seen_ms", "until")

    def __init__(self, packed: bytes, until: int) -> None:
        self.packed = packed
        self.until = until
        self.seen = b""
        self.seen_ms = 0


class Keeping(KeptLines):
    """What is kept now. `placed` may run ahead of the rest, which is for one caller at a time.

    What every line has to do with is native: an entry's way to the disk is not to wait for it.
    """

    def __init__(self) -> None:
        self._keys: dict[str, _Held] = {}
        self._horizon = 0

    def forgotten(self, until_ms: int) -> None:
        """What was needed until then may be gone already."""
        self._horizon = max(self._horizon, until_ms)

    def take(self, kept: Kept, at_ms: int, keep: Keep) -> None:
        """A line of a snapshot, read again; in the ledger's order."""
        until, opens, tie, intent, forever, keyed, counts = keep
        if not kept.needs & Need.ACT:
            until, opens, tie = 0, False, Tie.NONE
        if not kept.needs & Need.SAY:
            forever, keyed = False, tuple(one for one in keyed if one.op is Op.SEEN)
        if not kept.needs & Need.SEEN:
            keyed = tuple(one for one in keyed if one.op is not Op.SEEN)
        if not kept.needs & Need.COUNT:
            counts = 0
        packed = _RECORD.pack(kept.seq, kept.offset, kept.leaf)
        self.add(packed, kept.seq, at_ms, Keep(until, opens, tie, intent, forever, keyed, counts))

    def intents(self) -> list[int]:
        """Those that no outcome named yet, oldest first."""
        return sorted(self.open)

    def below(self, offset: int) -> list[Kept]:
        """What is needed of the lines that begin before `offset` of the stream."""
        return [one for one in self.snapshot(0).live(0)[0] if one.offset < offset]

    def snapshot(self, now_ms: int) -> Snapshot:
        """All that is needed now. What is not any more is forgotten."""
        for buckets in (self.acts, self.counts):
            for minute in [minute for minute in buckets if minute * _BUCKET_MS <= now_ms]:
                self.forgotten(minute * _BUCKET_MS)
                del buckets[minute]
        for key in [key for key, held in self._keys.items() if held.until <= now_ms]:
            self.forgotten(self._keys.pop(key).until)
        return Snapshot(
            self._horizon,
            b"".join(part for _, whole, rest in self.open.values() for part in (whole, rest)),
            {minute: bytes(packed) for minute, packed in self.acts.items()},
            b"".join((self.forever, *(held.packed for held in self._keys.values()))),
            b"".join(held.seen for held in self._keys.values()),
            {minute: bytes(packed) for minute, packed in self.counts.items()},
        )

    def under_keys(self, keyed: tuple[Keyed, ...], packed: bytes, at_ms: int) -> None:
        for op, key, until in keyed:
            self._keyed(op, key, until, packed, at_ms)

    def _keyed(self, op: Op, key: str, until: int, packed: bytes, at_ms: int) -> None:
        if op is Op.DROP:
            self._keys.pop(key, None)
            return
        if op is Op.REPLACE:
            self._keys[key] = _Held(packed, until)
            return
        held = self._keys.get(key)
        if held is None:
            return
        if op is Op.EXTEND:
            held.packed += packed
        elif at_ms >= held.seen_ms:
            held.seen, held.seen_ms = packed, at_ms
