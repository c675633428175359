"""Disk space kept for what must still be said when the disk is full: the outcome of every run that was let in.

Two means, one interface. `Preallocated` takes space ahead of the end of the file (fallocate with KEEP_SIZE: ext4, xfs,
btrfs, tmpfs), so that no admitted line can meet a full disk. Where the file system cannot do that, `Ballast` keeps a
file of random bytes beside it, and gives it up when a write meets a full disk.

Neither is thread-safe; the ledger calls them under its lock, but for `top_up` and `yield_space`, which are the writer
thread's.
"""

from __future__ import annotations

import errno
from typing import Final, Protocol

from immured.ledger.entry import MAX_LINE
from immured.ledger.reader import MAX_BATCH
from immured.ledger.storage import LogFile, Storage

__all__ = ["CLOSING_BYTES", "OUTCOME_BYTES", "Ballast", "NoSpace", "Preallocated", "Reserve", "open_reserve"]

OUTCOME_BYTES: Final = MAX_LINE + 1 + 1_024
"""Kept for each outstanding outcome: the longest line, and the ledger's own remark on a clock that stepped."""
CLOSING_BYTES: Final = 8_192
"""Kept for the daemon's last words."""

_CHUNK: Final = 4 << 20
_LOW: Final = 1 << 20
_BALLAST: Final = "ballast"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_UNABLE: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


class NoSpace(Exception):
    """The disk is too full to keep the reserve. Nothing was taken."""


class Reserve(Protocol):
    """Whether there is room. `end` is where the file will end when everything queued, and this, is written."""

    @property
    def limit(self) -> int:
        """As long as the file and what is kept are together no longer, `admit` need not be asked."""

    def admit(self, end: int, kept: int) -> None:
        """Make sure that the file can grow to `end` and `kept` bytes beyond. Raises NoSpace, OSError."""

    def top_up(self, end: int, kept: int) -> None:
        """Take more in advance when little is left, so that `admit` need not. Never raises."""

    def yield_space(self) -> bool:
        """A write met a full disk: give up what is kept. False when there is nothing to give."""

    def moved(self, end: int, room: int) -> None:
        """Another file is written, which ends at `end`; space for `room` more bytes was taken for it."""

    def close(self) -> None:
        """Give back what is not needed while nobody writes. Never raises."""


class Preallocated:
    """Space ahead of the end of the file itself."""

    def __init__(self, log: LogFile, end: int) -> None:
        self._log = log
        self._limit = end  # the file may hold space beyond, left by a predecessor: taking it again costs nothing

    @property
    def limit(self) -> int:
        """The file can grow to this size whatever else fills the disk."""
        return self._limit

    def _extend(self, to: int) -> None:
        try:
            self._log.allocate(self._limit, to - self._limit)
        except OSError as error:
            if error.errno in _FULL:
                raise NoSpace from error
            raise
        self._limit = max(self._limit, to)

    def admit(self, end: int, kept: int) -> None:
        need = end + kept
        if need <= self._limit:
            return
        try:
            self._extend(need + _CHUNK)
        except NoSpace:
            self._extend(need)

    def top_up(self, end: int, kept: int) -> None:
        need = end + kept
        if need + _LOW > self._limit:
            try:
                self._extend(need + _CHUNK)
            except (NoSpace, OSError):
                return  # `admit` will say so to whoever asks for more

    def yield_space(self) -> bool:
        return False

    def moved(self, end: int, room: int) -> None:
        self._limit = end + room

    def close(self) -> None:
        try:
            self._log.truncate(self._log.size())
        except OSError:
            return


class Ballast:
    """A file that can be thrown overboard. Weaker: an ordinary entry is admitted before it is known to fit."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._held = 0
        # What a predecessor left says nothing about what the present needs.
        storage.remove(_BALLAST)

    @property
    def limit(self) -> int:
        return 0  # what it depends on is not the file's length

    def admit(self, end: int, kept: int) -> None:  # noqa: ARG002  the file itself holds nothing in advance
        # A batch of ordinary entries may be under way when the disk fills: it draws on this too.
        need = kept + MAX_BATCH
        if need <= self._held:
            return
        try:
            self._storage.fill(_BALLAST, need)
        except OSError as error:
            if error.errno in _FULL:
                raise NoSpace from error
            raise
        self._held = need

    def top_up(self, end: int, kept: int) -> None:  # noqa: ARG002  `admit` has written all there is to write
        return

    def yield_space(self) -> bool:
        if not self._held:
            return False
        self._held = 0
        try:
            self._storage.remove(_BALLAST)
        except OSError:
            return False
        return True

    def moved(self, end: int, room: int) -> None:
        """The ballast is for whatever is written."""

    def close(self) -> None:
        self.yield_space()


def open_reserve(log: LogFile, storage: Storage, end: int) -> Reserve:
    """The better of the two means that this file system has. Raises OSError."""
    reserve = Preallocated(log, end)
    try:
        reserve.admit(end, CLOSING_BYTES)
    except NoSpace:
        return reserve
    except OSError as error:
        if error.errno not in _UNABLE:
            raise
        return Ballast(storage)
    return reserve
