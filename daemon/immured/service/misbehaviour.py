"""What unauthenticated peers do wrong: one ledger entry a uid and interval, with counts, so that a stranger cannot fill
the disk; and what may be a stranger's replay of somebody else's signed bytes, entered in full only so often. Sans-I/O.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

__all__ = ["DenialBound", "Misbehaviour"]

_MAX_UIDS: Final = 256


class Misbehaviour:
    """Counts by uid and code until the interval is over. Past 256 uids an interval, the rest share one entry."""

    def __init__(self) -> None:
        self._counts: dict[int | None, Counter[str]] = {}

    def __bool__(self) -> bool:
        return bool(self._counts)

    def add(self, uid: int, code: str) -> None:
        """Count one."""
        known = uid in self._counts or len(self._counts) < _MAX_UIDS
        self._counts.setdefault(uid if known else None, Counter())[code] += 1

    def take(self) -> list[dict[str, object]]:
        """The `data` of one `peer.misbehaved` entry a uid, and start anew. `uid` is absent in the shared entry."""
        counts, self._counts = self._counts, {}
        entries: list[dict[str, object]] = []
        for uid, codes in counts.items():
            entry: dict[str, object] = {} if uid is None else {"uid": uid}
            entry["count"] = codes.total()
            entry["codes"] = dict(sorted(codes.items()))
            entries.append(entry)
        return entries


class DenialBound:
    """Which denials before the nonce was claimed are entered in full: the same bytes once a uid and interval, and so
    many different ones. Signed bytes prove their signer, not who repeats them.
    """

    def __init__(self, per_interval: int = 64) -> None:
        self._per_interval = per_interval
        self._entered: dict[int, set[bytes]] = {}

    def admit(self, uid: int, digest: bytes) -> bool:
        """Whether this one gets an entry of its own. `digest` is of its payload bytes."""
        if len(self._entered) >= _MAX_UIDS and uid not in self._entered:
            return False
        entered = self._entered.setdefault(uid, set())
        if digest in entered or len(entered) >= self._per_interval:
            return False
        entered.add(digest)
        return True

    def renew(self) -> None:
        """A new interval."""
        self._entered.clear()
