"""Closing what strangers passed along. A close can wait for as long as they like: a FUSE server that leaves FLUSH
unanswered, a TCP socket that lingers. So a uid's descriptors are closed by a thread of that uid, one after another, and
who keeps that thread waiting is read from no further.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Iterable
from typing import Final

__all__ = ["Disposal"]

_BOUND: Final = 16


class Disposal:
    """Descriptors on their way out, by the uid that passed them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: dict[int, deque[int]] = {}  # there while its thread works; first is what it closes now

    def burdened(self, uid: int) -> bool:
        """Whether so many of that uid's wait to be closed that no more may be taken."""
        queue = self._queues.get(uid)
        return queue is not None and len(queue) >= _BOUND

    def close(self, uid: int, fds: Iterable[int]) -> None:
        """Close them, now or soon. Never waits."""
        slow = []
        for fd in fds:
            if _closes_at_once(fd):
                os.close(fd)
            else:
                slow.append(fd)
        if not slow:
            return
        with self._lock:
            queue = self._queues.get(uid)
            if queue is not None:
                queue.extend(slow)
                return
            self._queues[uid] = deque(slow)
        threading.Thread(target=self._work, args=(uid,), daemon=True, name=f"immured-close-{uid}").start()

    def _work(self, uid: int) -> None:
        while True:
            with self._lock:
                queue = self._queues[uid]
                if not queue:
                    del self._queues[uid]
                    return
            with contextlib.suppress(OSError):
                os.close(queue[0])
            with self._lock:
                queue.popleft()


def _closes_at_once(fd: int) -> bool:
    # Its name is the kernel's own, with no file system asked.
    return os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:[")  # noqa: PTH115 - no path
