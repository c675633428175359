"""Removing a ledger's oldest sealed files: what is kept still verifies, every copy has them, and nothing is forgotten.

One segment at a time. Before it goes the lines that a start still needs are durable beside the ledger (`carried`), and
the ledger itself says what went and where it begins now. A crash between leaves the file, which is retired again.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Mapping
from typing import Final

from immured.ledger.carried import Carried, CarriedError, carried_name, encode
from immured.ledger.checkpoint import NoteError, file_name, unverified
from immured.ledger.entry import MAX_LINE, LineError, leaf_hash, parse_line
from immured.ledger.entry_types import LEDGER_ROTATED
from immured.ledger.keeping import Keeping, Kept
from immured.ledger.pending import Pending
from immured.ledger.reader import Readable
from immured.ledger.segments import Part
from immured.ledger.storage import LogFile, Storage
from immured.ledger.timestamps import parse_timestamp

__all__ = ["CannotRetire", "Retention"]

_CHECKPOINTS: Final = "checkpoints"


class CannotRetire(Exception):
    """The oldest file may go by its age, and cannot: why. It stays, and so does all after it."""


class Retention:
    """Of one open ledger."""

    def __init__(
        self,
        storage: Storage,
        log: LogFile,
        keeping: Keeping,
        turn: Callable[[], contextlib.AbstractContextManager[None]],
        tell: Callable[[Mapping[str, object]], Pending],
        cover: Callable[[int], bool],
        clock: Callable[[], int],
    ) -> None:
        """`turn` keeps the writer back; `tell` adds a `ledger.retired` with this data; `cover` has a checkpoint cover a
        durable entry, and says whether one does."""
        self._storage, self._log, self._keeping, self._turn, self._tell = storage, log, keeping, turn, tell
        self._cover, self._clock = cover, clock
        self._one = threading.Lock()

    def retire(self, before_ns: int, held: int | None, going_on: Callable[[], bool]) -> list[str]:
        """Remove every sealed file whose last entry is from before that time, and that is among the `held` entries that
        each copy has (None: there are no copies), while `going_on`. The names of those that went. May take long;
        appends go on.

        Raises CannotRetire, Refused, OSError: what went before that is gone.
        """
        gone: list[str] = []
        with self._one:
            while going_on() and (one := self._due(before_ns, held)) is not None:
                self._go(*one)
                gone.append(one[0].name)
        return gone

    def _due(self, before_ns: int, held: int | None) -> tuple[Part, Part] | None:
        """The oldest file, if it may go, and the one after it."""
        with self._turn():
            parts = self._log.parts()
        if len(parts) < 2:
            return None
        oldest, following = parts[:2]
        with self._log.beside() as stream:
            line = stream.read(following.offset, MAX_LINE + 1).partition(b"\n")[0]
        try:
            entry = parse_line(line)
        except LineError as error:
            raise CannotRetire(f"{following.name}: line 1: {error}") from None
        if parse_timestamp(entry.ts) >= before_ns:
            return None
        if entry.type != LEDGER_ROTATED or entry.seq != following.first:
            raise CannotRetire(f"{following.name} does not begin with what would vouch for what is before it")
        if held is not None and held < following.first:
            raise CannotRetire(f"no more than {held} entries are in every copy, and {oldest.name} goes to {entry.seq}")
        self._check_signed(following, str(entry.data.get("root")))
        if self._log.is_fixed(oldest.name):
            raise CannotRetire(f"{oldest.name} may only be added to (chattr +a): the next start lets it go")
        return oldest, following

    def _check_signed(self, following: Part, root: str) -> None:
        name = f"{_CHECKPOINTS}/{file_name(following.first)}"
        try:
            head = unverified(self._storage.read_whole(name))
        except (OSError, NoteError) as error:
            raise CannotRetire(f"{name}, which would vouch for what is gone: {error}") from None
        if (head.size, head.root.hex()) != (following.first, root):
            raise CannotRetire(f"{name} is not of what {following.name} says was before it")

    def _go(self, oldest: Part, following: Part) -> None:
        first, name = following.first, carried_name(following.first)
        now_ms = self._clock() // 1_000_000
        with self._turn():
            snapshot = self._keeping.snapshot(now_ms)
        kept, horizon_ms = snapshot.live(now_ms)
        before = self._carried(oldest.first)
        with self._log.beside() as stream:
            needed = [(one, _line(one, oldest, before, stream)) for one in kept if one.offset < following.offset]
        content = encode(first, horizon_ms, needed)
        self._storage.write_whole(name, content)
        told = self._tell(
            {
                "segments": [oldest.name],
                "first": first,
                "bytes": following.offset,
                "carried": {
                    "file": name,
                    "lines": len(needed),
                    "len": len(content),
                    "sha256": hashlib.sha256(content).hexdigest(),
                },
            }
        ).wait()
        # A verifier believes it when it is signed: or anybody who can write the files could explain away what he cut.
        if not self._cover(told.seq):
            raise CannotRetire(f"no checkpoint could be signed that covers entry {told.seq}, which says so")
        self._log.retire(oldest.name)
        with self._turn():
            self._log.look()
        if oldest.first:
            self._storage.remove(carried_name(oldest.first))

    def _carried(self, first: int) -> Carried | None:
        if not first:
            return None
        try:
            return Carried.decode(self._storage.read_whole(carried_name(first)), first)
        except (FileNotFoundError, CarriedError) as error:
            raise CannotRetire(f"{carried_name(first)}: {error}") from None


def _line(kept: Kept, oldest: Part, before: Carried | None, stream: Readable) -> bytes:
    if kept.offset < oldest.offset:
        line = None if before is None else before.at(kept.offset)
    else:
        line = stream.read(kept.offset, MAX_LINE + 1).partition(b"\n")[0]
    if line is None or leaf_hash(line) != kept.leaf:
        raise CannotRetire(f"entry {kept.seq}, which is still needed, is not where it was")
    return line
