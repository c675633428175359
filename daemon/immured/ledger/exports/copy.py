"""A copy of the ledger elsewhere: what is new goes behind what is there, is durable, and is read again.

    copy = Copy(source, destination)
    copy.catch_up(Head(size=8402, end=3_912_004), vkeys, begun=True)

A `Destination` is one copy, wherever it lies; `Copy` decides what goes there. Only whole lines under a checkpoint are
copied, so that a copy verifies by itself, and what was copied once never changes: two that copy the same ledger to the
same place write the same bytes. A copy that is not what the ledger says is left as it is: it may be the evidence.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from immured.ledger.entry import MAX_LINE, LineError, parse_line
from immured.ledger.exports.head import Copied, ExportError, Head, differs, no_source
from immured.ledger.exports.seek import offset_of
from immured.ledger.recovery import CHECKPOINTS

if TYPE_CHECKING:
    from immured.ledger.exports.ports import Destination, Source

__all__ = ["VKEYS", "WITNESSED", "Copy"]

VKEYS: Final = "ledger.vkey"
WITNESSED: Final = "witnessed"
_CHUNK: Final = 1 << 20
_TAIL: Final = 1 << 20
_COSIGNING: Final = 8  # signed heads that may still be cosigned by another witness


class Copy:
    """Keeps one destination up to date with one ledger, for as long as it lives."""

    def __init__(self, source: Source, destination: Destination, progress: Callable[[], None] = lambda: None) -> None:
        """`progress` is told of every piece that is done."""
        self._source = source
        self._destination = destination
        self._progress = progress
        self._verified: int | None = None  # bytes of the copy that were written, or compared, by this object
        self._put = 0  # size of the newest checkpoint that it put there
        self._witnessed: dict[str, bytes] = {}  # the newest of those, as they were put there

    def probe(self, *, begun: bool) -> None:
        """Whether it can be written to now. Raises ExportError, OSError."""
        with self._attached(begun=begun):
            self._destination.probe()

    def catch_up(self, head: Head, vkeys: bytes, *, begun: bool) -> Copied:
        """Have it hold the ledger up to `head`, and every checkpoint of that. Raises ExportError, OSError."""
        with self._attached(begun=begun):
            there = self._destination.held()
            if there is None:
                self._verified, self._put = None, 0
                self._witnessed.clear()
            start = self._from() if there is None else there[0]
            at = start if there is None else self._position(there[1], start, head)
            while at < head.end:
                data = self._lines(at, head)
                self._destination.append(at, data)
                self._check(at, data)
                at += len(data)
                self._verified = at
                self._progress()
            self._verified = at
            self._whole(VKEYS, vkeys)
            self._checkpoints(head)
            self._cosigned(head)
            return Copied(head.size, head.end - start, there is None)

    @contextlib.contextmanager
    def _attached(self, *, begun: bool) -> Iterator[None]:
        self._destination.attach(begun=begun)
        try:
            yield
        finally:
            self._destination.detach()

    # --- where to go on

    def _position(self, held: int, start: int, head: Head) -> int:
        """How much of what is there stands. What is behind it was left by an attempt that did not end."""
        known = held if self._verified is None else self._verified
        if held < known:
            raise differs(f"it ends at byte {held}, and held {known}")
        end = min(known, head.end)
        different = self._difference(max(start, self._from(), end - _TAIL), end)
        if different is not None and (self._verified is not None or different < self._settled(start, head)):
            raise differs(f"byte {different} is not what it is there")
        if different is None and self._verified is None:
            names = self._destination.checkpoints()
            if names and self._entries(end) < min(int(names[-1]), head.size):
                raise differs(f"it ends at byte {held}, before what the checkpoint {names[-1]} beside it covers")
        if known > head.end:
            raise ExportError(
                "export_ahead",
                f"the copy holds {known} bytes of this ledger, and the ledger {head.end}: an older one was put back",
                "compare them (immure ledger compare); restore the ledger from the copy, or move the copy away",
            )
        return known if different is None else different

    def _difference(self, start: int, end: int) -> int | None:
        """The first byte in which the copy is not the ledger; None: it is the same from `start` to `end`."""
        while start < end:
            wanted = self._ledger(start, min(_CHUNK, end - start))
            found = self._destination.read(start, len(wanted))
            if found != wanted:
                pairs = enumerate(zip(found, wanted, strict=False))
                return start + next((at for at, (one, other) in pairs if one != other), len(found))
            start += len(wanted)
        return None

    def _entries(self, end: int) -> int:
        """How many whole lines the ledger's first `end` bytes hold."""
        start = max(self._from(), end - 2 * (MAX_LINE + 1))
        lines = self._ledger(start, end - start).split(b"\n")[:-1]
        return parse_line(lines[-1]).seq + 1 if lines else 0

    def _settled(self, start: int, head: Head) -> int:
        """Where the part ends that a checkpoint beside the copy covers: it was compared before that was put there."""
        names = self._destination.checkpoints()
        if not names:
            return start
        try:
            return offset_of(self._source.read, max(start, self._from()), head.end, min(int(names[-1]), head.size))
        except (LookupError, LineError) as error:
            raise no_source(str(error)) from error

    # --- what goes there

    def _ledger(self, offset: int, length: int) -> bytes:
        try:
            data = self._source.read(offset, length)
        except OSError as error:
            raise no_source(error.strerror or str(error)) from error
        if len(data) != length:
            raise no_source(f"it ends before byte {offset + length}")
        return data

    def _from(self) -> int:
        try:
            return self._source.start()
        except OSError as error:
            raise no_source(error.strerror or str(error)) from error

    def _lines(self, offset: int, head: Head) -> bytes:
        """What is put there next: whole lines, so that a piece can be read by itself."""
        data = self._ledger(offset, min(self._destination.piece, head.end - offset))
        return data if offset + len(data) == head.end else data[: data.rindex(b"\n") + 1]

    def _check(self, offset: int, data: bytes) -> None:
        if self._destination.read(offset, len(data)) != data:
            raise differs(f"what was just written at byte {offset} reads otherwise")

    def _whole(self, name: str, data: bytes) -> None:
        if self._destination.get(name) == data:
            return
        self._destination.put(name, data)
        if self._destination.get(name) != data:
            raise differs(f"{name}, just written, reads otherwise")

    def _checkpoints(self, head: Head) -> None:
        there = set() if self._put else set(self._destination.checkpoints())
        for name in self._notes(CHECKPOINTS):
            if self._put < int(name) <= head.size and name not in there:
                self._whole(f"{CHECKPOINTS}/{name}", self._note(CHECKPOINTS, name))
                self._progress()
        self._put = head.size

    def _cosigned(self, head: Head) -> None:
        """The newest heads may have come to bear other witnesses' signatures since."""
        names = [name for name in self._notes(WITNESSED) if int(name) <= head.size]
        for name in names if not self._witnessed else names[-_COSIGNING:]:
            data = self._note(WITNESSED, name)
            if self._witnessed.get(name) != data:
                self._whole(f"{WITNESSED}/{name}", data)
                self._witnessed[name] = data
                self._progress()
        for old in sorted(self._witnessed)[:-_COSIGNING]:
            del self._witnessed[old]

    def _notes(self, folder: str) -> Sequence[str]:
        try:
            return self._source.names(folder)
        except OSError as error:
            raise no_source(error.strerror or str(error)) from error

    def _note(self, folder: str, name: str) -> bytes:
        try:
            return self._source.note(folder, name)
        except OSError as error:
            raise no_source(error.strerror or str(error)) from error
