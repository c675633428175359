"""Reading costs, and so do answers that say no: who has not proven who he is does so on credit.

Every connection takes from its user's credit at one turnstile, every frame that no key of ours signed at another, and
from that of all; a connection whose command was taken gives back what it took. Once the credit is spent, those who have
proven nothing are let in, and their frames read, one after the other, each user's in turn, as the credit comes back: a
flood costs the same however fast it is sent. Connections that have proven themselves pass beside the queue.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

from immured.identity.rates import Buckets, Rate

__all__ = ["ATTEMPT", "BAD_FRAMES", "GLANCE", "REASONS", "Turnstile"]

ATTEMPT: Final = 1000
"""Thousandths of a token: a connection, a frame that is refused."""
GLANCE: Final = 10
"""A read that brings no whole frame."""
PER_SECOND: Final = 50
"""Attempts a second and user. One costs some 0.3 ms at most: a bad signature is verified twice, the answer signed."""
ALL: Final = 4
"""Users whose attempts together are worth everybody's."""
BAD_FRAMES: Final = 32
"""A user's, before he waits: some 10 ms of ours, which a client that makes a mistake now and then never notices."""
REASONS: Final = 128
"""Connections beyond his bound that a user is told of, two signatures each, before he is turned away without a word."""
_TICK_S: Final = 0.02
_USERS_A_TICK: Final = 64
_AT_ONCE: Final = 64


class Turnstile:
    """`burst`: a user's credit after a rest. `clock`: milliseconds, never set back; `later`: the loop's call_later."""

    def __init__(
        self, burst: int, *, clock: Callable[[], int], later: Callable[[float, Callable[[], None]], object]
    ) -> None:
        self._each = Rate(PER_SECOND, burst)
        self._all = Rate(ALL * PER_SECOND, 2 * ALL * burst)
        self._clock, self._later = clock, later
        self._users, self._everybody = Buckets(), Buckets()
        self._queues: OrderedDict[int, deque[Callable[[], None]]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def passes(self, uid: int) -> bool:
        """Whether one of this user's passes now; else he is to `wait`."""
        return uid not in self._queues and self._has_credit(uid, self._clock())

    def wait(self, uid: int, go: Callable[[], None]) -> None:
        """Call `go`, once, when it is his turn."""
        if not self._queues:
            self._later(_TICK_S, self._tick)
        self._queues.setdefault(uid, deque()).append(go)

    def take(self, uid: int, thousandths: int) -> None:
        """That much was spent on him (negative: it was not for nothing after all)."""
        now = self._clock()
        self._users.take(uid, self._each, now, thousandths)
        self._everybody.take(None, self._all, now, thousandths)

    def _has_credit(self, uid: int, now: int) -> bool:
        return not self._users.wait(uid, self._each, now) and not self._everybody.wait(None, self._all, now)

    def _tick(self) -> None:
        """Each user in turn, and of each as many as his credit lets: who proves himself gives back what he took. Who
        had no turn, since the credit of all was spent before him, is the first of the next."""
        now = self._clock()
        for uid in list(self._queues)[:_USERS_A_TICK]:
            queue, served = self._queues[uid], 0
            while queue and served < _AT_ONCE and self._has_credit(uid, now):
                queue.popleft()()
                served += 1
            if not queue:
                del self._queues[uid]
            elif served:
                self._queues.move_to_end(uid)
        if self._queues:
            self._later(_TICK_S, self._tick)
