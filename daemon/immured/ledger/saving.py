"""Writes `resume` beside a ledger that is open: what a start needs of the lines, and how far it need not read them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from immured.ledger.durable import Durable
from immured.ledger.exports.head import Head
from immured.ledger.keeping import Keeping
from immured.ledger.resume import RESUME, Resume
from immured.ledger.storage import Storage

__all__ = ["DEFAULT_PACE", "Pace", "Saving"]

_ENTRIES: Final = 16_384
_SECONDS: Final = 300.0

_log: Final = logging.getLogger("immured")


@dataclass(frozen=True, slots=True)
class Pace:
    """How often. `aside`: in a thread of its own, as signing and syncing take longer than an entry may wait."""

    entries: int = _ENTRIES
    seconds: float = _SECONDS
    aside: bool = True


DEFAULT_PACE: Final = Pace()


class Saving:
    """A `Follower` of `durable`. After a checkpoint: once `entries` came since the last, or `seconds` went by; and at
    the end. What fails is tried again at the next checkpoint: nothing but the next start would be the faster for it."""

    def __init__(
        self,
        storage: Storage,
        private: Ed25519PrivateKey,
        durable: Durable,
        keeping: Keeping,
        rules: str,
        leaf: bytes,
        saved: int,
        clock: Callable[[], int],
        pace: Pace,
    ) -> None:
        self._storage, self._private, self._durable, self._clock = storage, private, durable, clock
        self._keeping, self._rules, self._pace = keeping, rules, pace
        self._leaf = leaf
        self._recorded: tuple[str, ...] | None = None
        self._durability = ""
        self._saved, self._held, self._when = saved, 0, time.monotonic()
        self._closed = False
        self._thread: threading.Thread | None = None

    def begin(self, recorded: tuple[str, ...], durability: str) -> None:
        """These files in quarantine/ have entries that are written, and there are no others; and so that mode, if it
        has a name. Before this nothing is saved."""
        self._recorded, self._durability = recorded, durability

    def extend(self, leaves: bytes) -> None:
        """See `Follower`."""
        self._leaf = leaves[-32:]
        self._keeping.advance(self._durable.tree.size)

    def signed(self, head: Head, note: bytes) -> None:  # noqa: ARG002  a follower is given it
        """See `Follower`."""
        # What is kept may be much more than what came: then what it costs to write it is spread over as many entries.
        fresh = head.size - self._saved
        late = time.monotonic() >= self._when + self._pace.seconds
        if (late or fresh >= max(self._pace.entries, self._held)) and not self._busy:
            self._save(closed=False)

    def close(self) -> None:
        """See `Follower`."""
        if self._thread is not None:
            self._thread.join()
        if self._durable.signed == self._durable.tree.size != self._saved or not self._closed:
            self._save(closed=True)

    @property
    def _busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _save(self, *, closed: bool) -> None:
        durable = self._durable
        if self._recorded is None or durable.signed != durable.tree.size or not durable.followed:
            return
        kept = self._keeping.snapshot(self._clock() // 1_000_000)
        self._saved, self._held, self._when, self._closed = durable.tree.size, len(kept), time.monotonic(), closed
        resume = Resume(
            durable.origin,
            durable.tree.size,
            durable.end,
            self._leaf,
            durable.tree.copy(),
            self._rules,
            closed,
            self._recorded,
            self._durability,
            kept,
        )
        if closed or not self._pace.aside:
            self._write(resume)
            return
        thread = threading.Thread(target=self._write, args=(resume,), name="immured-resume", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._unwritten(str(error))
        else:
            self._thread = thread

    def _write(self, resume: Resume) -> None:
        try:
            self._storage.write_whole(RESUME, resume.encode(self._private))
        except OSError as error:
            self._unwritten(error.strerror or str(error))

    def _unwritten(self, why: str) -> None:
        self._saved = 0
        _log.warning("%s/%s cannot be written: %s", self._storage.where(), RESUME, why)
