"""One client's connection: frames in, frames out, descriptors only where they belong, and nothing without a bound.

Callbacks on the event loop, no task and no stream: asyncio's streams drop descriptors, and an idle connection must cost
little. What the bytes mean is `dispatch`'s concern; what a stuck, slow or vanished peer deserves is decided here.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import select
import socket
import termios
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from immured.errors import Refused
from immured.identity.certificates import Presented
from immured.isolation.messages import Peer
from immured.service.disposal import Disposal
from immured.service.limits import Budget, Limits
from immured.service.turnstile import ATTEMPT, GLANCE, Turnstile
from immured.wire.frames import Frame, FrameReader, encode_frame
from immured.wire.sockets import EndOfStream, receive_some

__all__ = ["Channel", "ChannelOwner"]

_PAUSE_S: Final = 0.5


class ChannelOwner(Protocol):
    """Whom a channel tells what happens, and of whose budgets it draws."""

    limits: Limits
    waiting: Budget
    unfinished: Budget
    disposal: Disposal
    entrance: Turnstile
    turnstile: Turnstile

    def frame(self, channel: Channel, frame: Frame) -> None:
        """A whole frame came. Its descriptors are the owner's now."""

    def broken(self, channel: Channel, error: Refused) -> None:
        """The stream is out of step, or too slow: answer once; `close_when_sent` follows."""

    def watch(self, channel: Channel) -> None:
        """Call `channel.check(now)` about once a second, until it returns False."""

    def closed(self, channel: Channel) -> None:
        """It is over. Called once."""


class Channel:
    """A connection. `sock` is non-blocking and owned; `number` is the launcher's name for it."""

    __slots__ = (
        "_closing",
        "_drained",
        "_entered",
        "_frame_since",
        "_half_closed",
        "_holds",
        "_loop",
        "_out",
        "_owner",
        "_progress",
        "_proven",
        "_queued",
        "_reader",
        "_reading",
        "_sock",
        "_spent",
        "_unfinished",
        "_waiting",
        "_watched",
        "_writing",
        "closed",
        "in_flight",
        "number",
        "on_closed",
        "on_last_word",
        "peer",
        "presented",
    )

    def __init__(self, owner: ChannelOwner, number: int, peer: Peer, sock: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._owner = owner
        self._sock = sock
        self._reader = FrameReader()
        self._reading = False
        self._writing = False
        self._watched = False
        self._closing = False
        self._half_closed = False
        self._holds = 0
        self._out: deque[memoryview] = deque()
        self._waiting = 0
        self._unfinished = 0
        self._progress = 0.0
        self._frame_since: float | None = None
        self._entered = False
        self._proven = False
        self._queued = False
        self._spent = 0
        self._drained: list[Callable[[], None]] = []
        self.number = number
        self.peer = peer
        self.closed = False
        self.in_flight = 0
        self.on_closed: dict[object, Callable[[], None]] = {}
        self.on_last_word: dict[object, Callable[[], None]] = {}
        self.presented = Presented()

    def enter(self, hello: Callable[[], bytes]) -> None:
        """Say hello and begin to read, when it is this user's turn."""
        if self._owner.entrance.passes(self.peer.uid):
            self._enter(hello)
        else:
            self._wait(self._owner.entrance, lambda: self._enter(hello))

    def proven(self) -> None:
        """A command of the peer's was taken: what the way to it has cost was not for nothing."""
        self._proven = True
        if self._entered:
            self._owner.entrance.take(self.peer.uid, -ATTEMPT)
            self._entered = False
        if self._spent:
            self._owner.turnstile.take(self.peer.uid, -self._spent)
            self._spent = 0

    def stray(self) -> None:
        """A frame came that nobody waits for: an attempt, of who has proven nothing."""
        self._spend(ATTEMPT)

    def failed(self) -> None:
        """What came proves nothing: from here on the connection is again as one that has just begun."""
        self._proven = False
        self._spent = 0
        self._owner.turnstile.take(self.peer.uid, ATTEMPT)

    @property
    def congested(self) -> bool:
        """Whether so much waits for the client that whoever feeds it should pause."""
        return self._waiting > self._owner.limits.low_water

    def when_drained(self, callback: Callable[[], None]) -> None:
        """Call once, when `congested` ends or the channel closes."""
        self._drained.append(callback)

    def hold(self) -> None:
        """Read no further frames until `unhold`, as many times: what they feed is full."""
        self._holds += 1
        self._update_reading()

    def unhold(self) -> None:
        """The inverse of `hold`."""
        self._holds -= 1
        self._update_reading()

    def dispose(self, fds: Iterable[int]) -> None:
        """Close descriptors that came from here. Never waits."""
        self._owner.disposal.close(self.peer.uid, fds)

    def begin(self) -> None:
        """A request is in flight."""
        self.in_flight += 1

    def end(self) -> None:
        """One less; a client that has said its last word is let go after the last."""
        self.in_flight -= 1
        self._maybe_finish()

    def send(self, body: bytes) -> None:
        """Queue one frame. A client for whom too much waits is cut off; on a closed channel nothing happens."""
        self.send_parts((encode_frame(body),))

    def send_parts(self, parts: Sequence[bytes]) -> None:
        """The same of a frame in parts, its header among them."""
        if self.closed:
            return
        sent = 0
        if not self._out:
            tried = self._try_send(parts)
            if tried is None:
                return
            sent = tried
        size = sum(map(len, parts)) - sent
        if not size:
            return
        if self._waiting + size > self._owner.limits.waiting_per_connection or not self._owner.waiting.take(
            self.peer.uid, size
        ):
            self.close()
            return
        if not self._out:
            self._progress = self._loop.time()
        for part in parts:
            if sent < len(part):
                self._out.append(memoryview(part)[sent:])
            sent = max(0, sent - len(part))
        self._waiting += size
        if not self._writing:
            self._writing = True
            self._loop.add_writer(self._sock, self._writable)
        self._watch()
        self._update_reading()

    def close_when_sent(self) -> None:
        """Read no more; close once everything queued is out."""
        self._closing = True
        self._maybe_finish()
        self._update_reading()

    def close(self) -> None:
        """Close at once. What was in flight learns it by `on_closed`."""
        if self.closed:
            return
        self.closed = True
        if self._reading:
            self._loop.remove_reader(self._sock)
        if self._writing:
            self._loop.remove_writer(self._sock)
        self._close_socket()
        self.dispose(self._reader.take_held())
        self._owner.waiting.take(self.peer.uid, -self._waiting)
        self._owner.unfinished.take(self.peer.uid, -self._unfinished)
        self._waiting = self._unfinished = 0
        self._out.clear()
        self._tell_drained()
        callbacks, self.on_closed = list(self.on_closed.values()), {}
        for callback in callbacks:
            callback()
        self._owner.closed(self)

    def check(self, now: float) -> bool:
        """The once-a-second look at deadlines. False: nothing to watch any more."""
        limits = self._owner.limits
        if self.closed:
            return False
        slow = self._frame_since is not None and now - self._frame_since > limits.frame_deadline_s
        if slow and not self._queued:  # else it is we who keep it waiting
            took = f"a frame took longer than {limits.frame_deadline_s:g} s to arrive"
            self._break(Refused("slow_frame", took, "send a frame's bytes in one go"))
            return self._watched
        stuck = bool(self._out) and now - self._progress > limits.stuck_deadline_s
        if stuck or (not self._reading and self._hung_up()):
            self.close()
            return False
        self._watched = self._frame_since is not None or bool(self._out) or not self._reading
        return self._watched

    # -- reading

    def _readable(self) -> None:
        if self._owner.disposal.burdened(self.peer.uid):
            self._pause()
        elif self._proven or self._owner.turnstile.passes(self.peer.uid):
            self._read()
        else:
            self._wait(self._owner.turnstile, self._read)

    def _read(self) -> None:
        try:
            frame = receive_some(self._sock, self._reader, close=self.dispose)
            if frame is None:
                # The header alone came; its body is most often there already.
                frame = receive_some(self._sock, self._reader, close=self.dispose)
        except (BlockingIOError, InterruptedError):
            frame = None
        except EndOfStream as end:
            self._end_of_stream(torn=end.torn)
            return
        except Refused as error:
            self._break(error)
            return
        except OSError:
            self.close()
            return
        if frame is None:
            self._spend(GLANCE)
            self._unfinished_frame()
            return
        if self._frame_since is not None:
            self._frame_since = None
            self._owner.unfinished.take(self.peer.uid, -self._unfinished)
            self._unfinished = 0
        self._owner.frame(self, frame)
        if self._holds or self._waiting or self._closing:
            self._update_reading()

    def _unfinished_frame(self) -> None:
        if self._reader.at_boundary:
            return
        if self._frame_since is None:
            self._frame_since = self._loop.time()
            self._watch()
        more = self._reader.buffered - self._unfinished
        if not self._owner.unfinished.take(self.peer.uid, more):
            self._break(Refused("busy", "too many unfinished frames wait for their end", "send a frame in one go"))
            return
        self._unfinished += more

    def _end_of_stream(self, *, torn: bool) -> None:
        if torn:
            self._break(Refused("bad_frame", "the stream ended inside a frame", "send what the header announces"))
            return
        if self._hung_up():
            self.close()
            return
        self._half_closed = True
        for callback in list(self.on_last_word.values()):
            callback()
        self._maybe_finish()
        self._update_reading()

    def _enter(self, hello: Callable[[], bytes]) -> None:
        self._entered = True
        self._owner.entrance.take(self.peer.uid, ATTEMPT)
        self.send(hello())
        self._update_reading()

    def _spend(self, thousandths: int) -> None:
        if not self._proven:
            self._spent += thousandths
            self._owner.turnstile.take(self.peer.uid, thousandths)

    def _wait(self, turnstile: Turnstile, go: Callable[[], None]) -> None:
        """Read nothing until it is this user's turn; whoever has left by then misses it."""

        def my_turn() -> None:
            self._queued = False
            if self.closed:
                return
            if self._hung_up():
                self.close()
                return
            self._update_reading()
            if self._frame_since is not None:
                self._frame_since = self._loop.time()  # the wait was ours
            go()

        self._queued = True
        self._update_reading()
        self._watch()
        turnstile.wait(self.peer.uid, my_turn)

    def _break(self, error: Refused) -> None:
        self.failed()
        self._frame_since = None
        self._closing = True
        self._owner.broken(self, error)
        self.close_when_sent()

    def _update_reading(self) -> None:
        if self.closed:
            return
        wanted = not (self._half_closed or self._closing or self._queued) and (
            not self._reader.at_boundary or (not self._holds and self._waiting <= self._owner.limits.high_water)
        )
        if wanted == self._reading:
            return
        self._reading = wanted
        if wanted:
            self._loop.add_reader(self._sock, self._readable)
        else:
            self._loop.remove_reader(self._sock)
            self._watch()

    def _pause(self) -> None:
        """Read nothing for a while: what this user passed before is still being closed."""
        self._reading = False
        self._loop.remove_reader(self._sock)
        self._loop.call_later(_PAUSE_S, self._update_reading)
        self._watch()

    def _close_socket(self) -> None:
        """With what was never read go its descriptors, and with them whatever time their closing takes."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # from here on nothing more comes
        unread = array.array("i", [0])
        fcntl.ioctl(self._sock, termios.FIONREAD, unread)
        if unread[0]:
            self.dispose([self._sock.detach()])
        else:
            self._sock.close()

    def _hung_up(self) -> bool:
        """Whether the peer closed both ways: with no reader registered nobody else would tell."""
        poll = select.poll()
        poll.register(self._sock, 0)
        return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))

    # -- writing

    def _try_send(self, parts: Iterable[bytes | memoryview]) -> int | None:
        """Bytes sent, 0 where the socket is full; None: the peer is gone, and the channel closed."""
        try:
            return self._sock.sendmsg(parts, (), socket.MSG_NOSIGNAL)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self.close()
            return None

    def _writable(self) -> None:
        while self._out:
            data = self._out[0]
            sent = self._try_send((data,))
            if sent is None:
                return
            if sent:
                self._progress = self._loop.time()
                self._waiting -= sent
                self._owner.waiting.take(self.peer.uid, -sent)
            if sent < len(data):
                self._out[0] = data[sent:]
                break
            self._out.popleft()
        if not self._out:
            self._writing = False
            self._loop.remove_writer(self._sock)
            self._maybe_finish()
        if not self.congested:
            self._tell_drained()
            self._update_reading()

    def _maybe_finish(self) -> None:
        if not self.closed and not self._out and (self._closing or (self._half_closed and not self.in_flight)):
            self.close()

    def _tell_drained(self) -> None:
        callbacks, self._drained = self._drained, []
        for callback in callbacks:
            callback()

    def _watch(self) -> None:
        if not self._watched and not self.closed:
            self._watched = True
            self._owner.watch(self)
