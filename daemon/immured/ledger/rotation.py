"""When a ledger's file is sealed, and what the first line of the next one says of all before.

The digest that it says of the sealed file is computed beside whoever writes, before it is sealed: what appends wait for
is a few syncs, however long the file is. For whoever has the writer's turn; no lock of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from immured.ledger.entry import MAX_LINE, LineError, parse_line
from immured.ledger.segments import segment_name
from immured.ledger.storage import LogFile
from immured.ledger.timestamps import parse_timestamp
from immured.ledger.tree import Frontier
from immured.ledger.writer import Unchanged

__all__ = [
    "DEFAULT_LIMITS",
    "ROOM_BYTES",
    "SEGMENT_BYTES",
    "CannotRotate",
    "Limits",
    "Rotation",
    "rotated",
    "unchanged",
]

SEGMENT_BYTES: Final = 256 << 20
ROOM_BYTES: Final = 4 << 20
"""Disk space that a new file begins with, beside what is kept for outcomes."""

_RETRY_S: Final = 30.0
_LOOK_S: Final = 0.05  # while a digest is computed
_LONGEST_S: Final = 3_600.0
_PIECE: Final = 1 << 20
_HERE: Final = 1 << 20  # bytes that are digested on the writer's turn: a millisecond or a few


def rotated(origin: str, tree: Frontier, first: int, end: int, sha256: str) -> dict[str, object]:
    """The data of a `ledger.rotated`: `tree` is over all entries before it, which end at byte `end` of the stream; the
    file that was sealed holds those from `first` on, and has this digest."""
    return {
        "origin": origin,
        "size": tree.size,
        "bytes": end,
        "root": tree.root().hex(),
        "frontier": [root.hex() for root in tree.roots()],
        "segment": segment_name(first),
        "first": first,
        "entries": tree.size - first,
        "sha256": sha256,
    }


@dataclass(frozen=True, slots=True)
class Limits:
    """When the file is sealed that is written."""

    size: int = SEGMENT_BYTES
    """Bytes. A file gets a little longer: nothing waits for its digest."""
    age_s: float | None = None
    """Since its first entry; None: however old."""


DEFAULT_LIMITS: Final = Limits()


class CannotRotate(Unchanged):
    """The file cannot be sealed now, and is written on."""


@contextlib.contextmanager
def unchanged() -> Iterator[None]:
    """While what fails changes nothing: an OSError becomes CannotRotate."""
    try:
        yield
    except OSError as error:
        raise CannotRotate(error.strerror or str(error)) from error


class Digest:
    """SHA-256 of the file that is written, up to where it was last told to go."""

    def __init__(self, log: LogFile, start: int) -> None:
        self._log = log
        self._sha256 = hashlib.sha256()
        self._at = start
        self._thread: threading.Thread | None = None
        self._ended = False

    def follow(self, end: int) -> bool:
        """Whether so little is missing to `end` that the rest can be done here and now; if not, a thread is at it.
        Raises OSError."""
        if self._thread is not None:
            if self._thread.is_alive():
                return False
            self._thread = None
        if end - self._at <= _HERE:
            return True
        thread = threading.Thread(target=self._go, args=(end,), name="immured-digest", daemon=True)
        with contextlib.suppress(RuntimeError):  # there can be no more threads now
            thread.start()
            self._thread = thread
        return False

    def finish(self, end: int) -> str:
        """The digest up to `end`, as hex. Raises OSError."""
        self._read(end)
        return self._sha256.hexdigest()

    def close(self) -> None:
        """Give up."""
        self._ended = True
        if self._thread is not None:
            self._thread.join()

    def _go(self, end: int) -> None:
        try:
            self._read(end)
        except OSError:
            return  # whoever finishes it meets the same

    def _read(self, end: int) -> None:
        while self._at < end and not self._ended:
            data = self._log.read(self._at, min(_PIECE, end - self._at))
            if not data:
                raise OSError(f"the file ends at byte {self._at} of the stream, before {end}")
            self._sha256.update(data)
            self._at += len(data)


class Rotation:
    """Decides when, and has the digest ready by then."""

    def __init__(self, log: LogFile, limits: Limits, clock: Callable[[], int]) -> None:
        self._log, self._limits, self._clock = log, limits, clock
        self._digest: Digest | None = None
        self._not_before = 0.0
        self.failure = ""
        """Why the file is longer, or older, than it should be; empty when it is not."""
        self._begin()

    @property
    def first(self) -> int:
        """The first entry of the file that is written."""
        return self._part.first

    def ready(self, size: int, end: int) -> bool:
        """Whether to seal it now, with `size` durable entries that end at byte `end`."""
        if not self._due(size, end) or time.monotonic() < self._not_before:
            return False
        self._digest = self._digest or Digest(self._log, self._part.offset)
        return self._digest.follow(end)

    def pause(self, size: int, end: int) -> float | None:
        """Seconds until `ready` should be asked again; None: not before more was written."""
        if self._due(size, end):
            return max(_LOOK_S, self._not_before - time.monotonic())
        if self._limits.age_s is None or size - self._part.first < 2:
            return None
        return min(max(_LOOK_S, self._limits.age_s - self._age_s()), _LONGEST_S)

    def until(self, end: int) -> int | None:
        """Where it will be long enough; None where it is, with its end at `end`: then `pause` says what to wait for."""
        enough = self._part.offset + self._limits.size
        return enough if end < enough else None

    def digest(self, end: int) -> str:
        """Of the file up to byte `end`, which `ready` was told of, or a little more. Raises OSError."""
        return (self._digest or Digest(self._log, self._part.offset)).finish(end)

    def failed(self, why: str) -> None:
        """It could not be sealed; nothing is lost. It is tried again."""
        self.failure = f"sealing {segment_name(self._part.first)}: {why}"
        self._not_before = time.monotonic() + _RETRY_S

    def done(self) -> None:
        """It was sealed: now of the next."""
        self.close()
        self.failure = ""
        self._begin()

    def close(self) -> None:
        """End what is under way."""
        if self._digest is not None:
            self._digest.close()
            self._digest = None

    def _begin(self) -> None:
        self._part = self._log.parts()[-1]
        line = self._log.read(self._part.offset, MAX_LINE + 1).partition(b"\n")[0]
        try:
            self._begun_ns = parse_timestamp(parse_line(line).ts)
        except LineError:
            self._begun_ns = self._clock()  # damage is for others to find

    def _due(self, size: int, end: int) -> bool:
        """A file of one line is not worth a segment, however old or long."""
        if size - self._part.first < 2:
            return False
        if end - self._part.offset >= self._limits.size:
            return True
        return self._limits.age_s is not None and self._age_s() >= self._limits.age_s

    def _age_s(self) -> float:
        return (self._clock() - self._begun_ns) / 1e9
