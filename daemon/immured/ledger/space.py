"""Whether an entry is let in: the space that the disk has for it, beside what is kept for outcomes and last words.

Called under the ledger's lock, but for `top_up` and `yield_space` (see `reserve`). `end` is an offset in the ledger's
one stream of bytes.
"""

from __future__ import annotations

from typing import NamedTuple

from immured._ledger_write import Places
from immured.errors import Refused
from immured.ledger.pending import Receipt
from immured.ledger.reserve import CLOSING_BYTES, OUTCOME_BYTES, NoSpace, open_reserve
from immured.ledger.storage import LogFile, Storage

__all__ = ["Space"]


class Weighed(NamedTuple):
    """An entry that is let in: its index; what is kept, all together, once it has its place; whose outcome it is; which
    intent it is a part of, and what is kept for that then."""

    seq: int
    kept: int
    outcome_of: int | None
    part_of: int | None
    left: int


class Space:
    """What is kept, and for which intents."""

    def __init__(self, log: LogFile, storage: Storage, places: Places[Receipt]) -> None:
        self._storage = storage
        self._places = places  # which admits by itself whatever fits the room that it was told of
        self._reserve = open_reserve(log, storage, places.end)

    @property
    def outstanding(self) -> int:
        """Outcomes that space is kept for."""
        return len(self._places.outstanding)

    @property
    def kept(self) -> int:
        """Bytes that are kept, all together."""
        return self._places.kept

    def weigh(
        self,
        seq: int,
        start: int,
        end: int,
        *,
        wanted: bool | int,
        outcome_of: int | None,
        part_of: int | None,
        closing: bool,
    ) -> Weighed:
        """Whether the entry `seq` is let in, whose bytes are to stand from `start` to `end`; the rest is as in
        `Ledger.entry`. `take` or `forget` must follow.

        Raises Refused("ledger_unavailable"), and then nothing is changed.
        """
        if isinstance(wanted, bool):
            wanted = int(wanted) * OUTCOME_BYTES
        outstanding = self._places.outstanding
        used = outstanding.get(outcome_of, 0) if outcome_of is not None else 0
        whole = outstanding.get(part_of, 0) if part_of is not None else 0
        part = min(end - start, whole)
        kept = self._places.kept + wanted - used - part
        self._admit(end, kept - CLOSING_BYTES if closing else kept)
        weighed = Weighed(seq, kept, outcome_of, part_of if part else None, whole - part)
        if wanted:
            outstanding[seq] = wanted
        return weighed

    def take(self, weighed: Weighed) -> None:
        """It has its place."""
        self._places.kept = weighed.kept
        if weighed.outcome_of is not None:
            self._places.outstanding.pop(weighed.outcome_of, None)
        if weighed.part_of is not None:
            self._places.outstanding[weighed.part_of] = weighed.left

    def forget(self, weighed: Weighed) -> None:
        """It does not get it."""
        self._places.outstanding.pop(weighed.seq, None)

    def admit(self, n: int) -> None:
        """Whether `n` more intents would be let in. Raises Refused("ledger_unavailable"); keeps nothing."""
        self._admit(self._places.end + n * OUTCOME_BYTES, self._places.kept + n * OUTCOME_BYTES)

    def release(self, intent: int) -> None:
        """Keep no more for that intent's outcome."""
        self._places.kept -= self._places.outstanding.pop(intent, 0)

    def top_up(self, end: int, kept: int) -> None:
        """Take more in advance when little is left. Never raises."""
        self._reserve.top_up(end, kept)

    def yield_space(self) -> bool:
        """A write met a full disk: give up what is kept. False when there is nothing to give."""
        return self._reserve.yield_space()

    def moved(self, end: int, room: int) -> None:
        """The file that is written is another, which ends at `end`, and has disk space for `room` more bytes where the
        file system can promise that."""
        self._reserve.moved(end, room)
        self._places.room = self._reserve.limit

    def close(self) -> None:
        """Give back what is not needed while nobody writes. Never raises."""
        self._reserve.close()

    def _admit(self, end: int, kept: int) -> None:
        try:
            self._reserve.admit(end, kept)
        except NoSpace:
            where = self._storage.where()
            raise Refused(
                "ledger_unavailable",
                f"the disk that holds {where} is full: no room for this entry beside what is kept "
                f"for the outcomes of {len(self._places.outstanding)} runs",
                f"free space on the file system of {where}, then ask again",
                details={"path": where, "reason": "disk_full"},
            ) from None
        except OSError as error:
            where = self._storage.where()
            raise Refused(
                "ledger_unavailable",
                f"cannot take disk space in {where}: {error.strerror}",
                f"look at the file system of {where}, then ask again",
                details={"path": where, "reason": "io_error"},
            ) from error
        self._places.room = self._reserve.limit
