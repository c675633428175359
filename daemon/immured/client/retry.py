"""When the same signed bytes are sent again. The daemon acts once on them, however often they come."""

from __future__ import annotations

import time
from typing import Final

from immured.client.errors import ConnectionLost, Refusal
from immured.client.session import Request
from immured.errors import RETRYABLE, ImmuredError
from immured.wire.messages import SKEW_MS

__all__ = ["Backoff"]

_FIRST: Final = 0.02
_LONGEST: Final = 1.0


class Backoff:
    """The pauses between attempts: doubling from 20 ms to 1 s; where the daemon says when to come again, no sooner than
    that, up to 1 s too: what it names may be the latest moment."""

    def __init__(self, retries: int) -> None:
        self._left = retries
        self._pause = _FIRST
        self.used = False
        """Whether an attempt has been repeated."""

    def delay(self, error: ImmuredError, request: Request | None) -> float:
        """Seconds to wait before the next attempt after `error`. Raises `error` where another attempt is not due."""
        code = error.code if isinstance(error, Refusal) else None
        if self.used and code == "in_progress":
            pass  # our own earlier attempt still runs; asking for its reply uses nothing up
        elif self._left > 0 and (isinstance(error, ConnectionLost) or code in RETRYABLE):
            self._left -= 1
        else:
            raise error
        if request is not None and time.time_ns() // 1_000_000 >= request.exp + SKEW_MS:
            raise error
        self.used = True
        pause, self._pause = self._pause, min(2 * self._pause, _LONGEST)
        named = error.details.get("retry_ms")
        return max(pause, min(named / 1000, _LONGEST)) if isinstance(named, int) else pause
