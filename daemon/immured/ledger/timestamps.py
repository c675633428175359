"""The ledger's one notation of time: RFC 3339, UTC, nine digits of nanoseconds."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta

__all__ = ["compact", "parse_timestamp", "timestamp"]

_SHAPE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{9}Z")
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC, as all that it is compared with
_SECOND = timedelta(seconds=1)


def timestamp(ns: int) -> str:
    """`YYYY-MM-DDTHH:MM:SS.nnnnnnnnnZ` for nanoseconds since the epoch."""
    seconds, rest = divmod(ns, 1_000_000_000)
    t = time.gmtime(seconds)
    return f"{t[0]:04d}-{t[1]:02d}-{t[2]:02d}T{t[3]:02d}:{t[4]:02d}:{t[5]:02d}.{rest:09d}Z"


def parse_timestamp(text: str) -> int:
    """Nanoseconds since the epoch. Raises ValueError for any other notation, and for a day that no calendar has."""
    if _SHAPE.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not of the form YYYY-MM-DDTHH:MM:SS.nnnnnnnnnZ")
    seconds = (datetime.fromisoformat(text[:19]) - _EPOCH) // _SECOND
    return seconds * 1_000_000_000 + int(text[20:29])


def is_timestamp(text: str) -> bool:
    """Whether `parse_timestamp` would take it; cheaper, since a reader asks it of every line."""
    if _SHAPE.fullmatch(text) is None:
        return False
    try:
        datetime.fromisoformat(text[:19])
    except ValueError:
        return False
    return True


def compact(ns: int) -> str:
    """The same moment as part of a file name: `YYYYMMDDTHHMMSS.nnnnnnnnnZ`."""
    return timestamp(ns).replace("-", "").replace(":", "")
