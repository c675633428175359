"""Connections: whom to let in, what the hello says, and the once-a-second look at those that need one."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import immured
from immured.errors import Refused
from immured.isolation.launcher import Connection
from immured.service.channel import Channel
from immured.service.daemon_keys import DaemonKeys
from immured.service.disposal import Disposal
from immured.service.limits import Budget, Limits
from immured.service.shares import monotonic_ms
from immured.service.turnstile import ATTEMPT, REASONS, Turnstile
from immured.wire.envelope import seal
from immured.wire.frames import MAX_FRAME, Frame
from immured.wire.messages import HELLO, MAX_CAPTURE, MAX_DATA, MAX_LIFETIME_MS, REPLY, Hello, Reply

__all__ = ["Server"]

_CHECK_EVERY_S: Final = 1.0
_GOODBYE_EVERY_S: Final = 0.02
_AWAY_S: Final = 1.0
_TOO_MANY: Final = "too_many_connections"
_FOR_ROOT: Final = 64
"""Connections beyond the bound that only uid 0 gets: whoever holds all others keeps no operator out."""


class Server:
    """Every connection of the daemon. `on_frame` takes whole frames (and owns their descriptors); `misbehaved` counts
    what unauthenticated peers do wrong; `forget` tells the launcher that a connection is closed, `turn_away` to let go
    of a user's (a uid) for so many milliseconds.
    """

    def __init__(
        self,
        *,
        keys: DaemonKeys,
        boot: bytes,
        limits: Limits,
        on_frame: Callable[[Channel, Frame], None],
        misbehaved: Callable[[int, str], None],
        forget: Callable[[int], None],
        turn_away: Callable[[int, int], None],
    ) -> None:
        self.limits = limits
        self.waiting = Budget(limits.waiting)
        self.unfinished = Budget(limits.unfinished)
        self.disposal = Disposal()
        loop = asyncio.get_running_loop()
        let_in = limits.connections_per_uid + REASONS
        self.entrance = Turnstile(let_in, clock=monotonic_ms, later=loop.call_later)
        self.turnstile = Turnstile(limits.bad_frames_per_uid, clock=monotonic_ms, later=loop.call_later)
        self._keys = keys
        self._boot = boot
        self._on_frame = on_frame
        self._misbehaved = misbehaved
        self._forget = forget
        self._let_go = turn_away
        self._away: dict[int, float] = {}
        self._channels: set[Channel] = set()
        self._by_uid: Counter[int] = Counter()
        self._watched: set[Channel] = set()
        self._loop = loop
        self._said_limits = {
            "frame": MAX_FRAME,
            "data": MAX_DATA,
            "capture": MAX_CAPTURE,
            "lifetime_ms": MAX_LIFETIME_MS,
            "connections_per_uid": limits.connections_per_uid,
            "requests_per_connection": limits.requests_per_connection,
        }

    def __len__(self) -> int:
        return len(self._channels)

    def accept(self, connection: Connection) -> None:
        """A client connected: say hello, or say why not and close."""
        uid = connection.peer.uid
        channel = Channel(self, connection.number, connection.peer, connection.sock)
        self._channels.add(channel)
        self._by_uid[uid] += 1
        if self._by_uid[uid] > self.limits.connections_per_uid:
            bound = f"uid {uid} has {self.limits.connections_per_uid} connections open, which is the bound"
            self._turn_away(channel, Refused(_TOO_MANY, bound, "use one connection for many requests"))
        elif len(self._channels) > self.limits.connections + (0 if uid else _FOR_ROOT):
            self._turn_away(channel, Refused(_TOO_MANY, "the daemon's connections are all taken", "try later"))
        else:
            channel.enter(self._hello)

    def _turn_away(self, channel: Channel, error: Refused) -> None:
        """With a reason, while the user has credit for one: two signatures. A crowd is turned away without a word."""
        if self.entrance.passes(channel.peer.uid):
            self.entrance.take(channel.peer.uid, ATTEMPT)
            channel.send(self._hello())
            self.broken(channel, error)
            channel.close_when_sent()
        else:
            self._misbehaved(channel.peer.uid, error.code)
            self._keep_away(channel.peer.uid)
            channel.close()

    def _keep_away(self, uid: int) -> None:
        """Have the launcher see to a crowd; once is enough, though those that it let in before still come."""
        now = self._loop.time()
        if uid and now >= self._away.get(uid, 0.0):
            self._away = {one: until for one, until in self._away.items() if now < until}
            self._away[uid] = now + _AWAY_S
            self._let_go(uid, round(1000 * _AWAY_S))

    async def say_goodbye(self, seconds: float) -> None:
        """At the end: let everyone go once they took what is queued for them, and after so many seconds anyway."""
        for channel in list(self._channels):
            channel.close_when_sent()
        deadline = self._loop.time() + seconds
        while self._channels and self._loop.time() < deadline:  # noqa: ASYNC110 - at the end, and never long
            await asyncio.sleep(_GOODBYE_EVERY_S)
        self.close_all()

    def close_all(self) -> None:
        """Let everyone go at once."""
        for channel in list(self._channels):
            channel.close()

    # -- what channels ask for

    def frame(self, channel: Channel, frame: Frame) -> None:
        """A whole frame came."""
        self._on_frame(channel, frame)

    def broken(self, channel: Channel, error: Refused) -> None:
        """Answer, once and signed, what put the stream out of step."""
        self._misbehaved(channel.peer.uid, error.code)
        channel.send(seal(REPLY, Reply.refusal(error).to_payload(), self._keys.signing))

    def watch(self, channel: Channel) -> None:
        """Look at it about once a second until it asks for no more."""
        if not self._watched:
            self._loop.call_later(_CHECK_EVERY_S, self._check)
        self._watched.add(channel)

    def closed(self, channel: Channel) -> None:
        """It is over."""
        uid = channel.peer.uid
        self._channels.discard(channel)
        self._watched.discard(channel)
        self._by_uid[uid] -= 1
        if not self._by_uid[uid]:
            del self._by_uid[uid]
        self._forget(channel.number)

    def _check(self) -> None:
        now = self._loop.time()
        for channel in list(self._watched):
            if not channel.check(now):
                self._watched.discard(channel)
        if self._watched:
            self._loop.call_later(_CHECK_EVERY_S, self._check)

    def _hello(self) -> bytes:
        hello = Hello(
            daemon=self._keys.id,
            boot=self._boot,
            time_ms=time.time_ns() // 1_000_000,
            version=immured.__version__,
            limits=self._said_limits,
        )
        return seal(HELLO, hello.to_payload(), self._keys.signing)
