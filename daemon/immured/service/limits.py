"""The bounds that keep one peer from spending what belongs to all. Bytes and seconds."""

from __future__ import annotations

from dataclasses import dataclass

from immured.service.turnstile import BAD_FRAMES

__all__ = ["Budget", "Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the socket side. The hello tells the first three to clients."""

    connections_per_uid: int = 256
    bad_frames_per_uid: int = BAD_FRAMES
    requests_per_connection: int = 128
    connections: int = 8192
    frame_deadline_s: float = 10.0  # from a frame's first byte to its last
    stuck_deadline_s: float = 30.0  # of a client that takes nothing of what waits for it
    high_water: int = 1 << 20  # bytes waiting for one client, at which whatever feeds it pauses
    low_water: int = 1 << 18
    waiting_per_connection: int = 64 << 20
    waiting: int = 256 << 20  # for all clients together; half of it for one user
    unfinished: int = 128 << 20  # of frames that have begun, likewise


class Budget:
    """A number of bytes that all users share, so that something is left for each: nobody gets more than what stays free
    after it. One user alone can have half of it. Whoever takes gives back.
    """

    __slots__ = ("_by_uid", "limit", "taken")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self._by_uid: dict[int, int] = {}

    def take(self, uid: int, amount: int) -> bool:
        """Take `amount` for a user (negative: give back). False, and nothing taken, where that is too much."""
        mine, taken = self._by_uid.get(uid, 0) + amount, self.taken + amount
        if amount > 0 and mine > self.limit - taken:
            return False
        self.taken = taken
        if mine:
            self._by_uid[uid] = mine
        else:
            self._by_uid.pop(uid, None)
        return True
