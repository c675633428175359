"""A connection for threads: any number of them send and wait on one socket, with no thread of its own.

Whoever waits reads for all (a leader); the others wait for the leader to bring their frame or to hand the reading on.
A single caller therefore reads its own reply, with no switch between threads on the way.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from immured.client.errors import ConnectionLost, NoReply
from immured.client.session import Call, Request, Session
from immured.errors import ImmuredError, Refused
from immured.wire.frames import FrameReader, encode_frame
from immured.wire.keys import PublicKey
from immured.wire.messages import Data, Hello, Reply
from immured.wire.sockets import EndOfStream, close_all, receive_some, send_some

__all__ = ["HELLO_SECONDS", "Deadline", "Link", "connect_socket", "silent"]

HELLO_SECONDS = 10.0
"""A daemon says hello as soon as it accepts. Who has not heard it for so long speaks to something else."""


def silent() -> ConnectionLost:
    """The error that says so."""
    return ConnectionLost(f"the daemon said no hello within {HELLO_SECONDS:g} s")


class Deadline:
    """A point in time after `seconds`; None: never."""

    __slots__ = ("_end", "seconds")

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float | None:
        """Seconds left, or None for ever. Raises NoReply when there are none."""
        if self._end is None:
            return None
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.passed()
        return left

    def passed(self) -> NoReply:
        """The error that says so."""
        return NoReply(self.seconds or 0.0)


def connect_socket(path: Path, deadline: Deadline) -> socket.socket:
    """A connected stream socket. Raises ConnectionLost where nobody listens, or nobody accepts for HELLO_SECONDS."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        left = deadline.left()
        bound = HELLO_SECONDS if left is None else min(left, HELLO_SECONDS)
        # Not settimeout: a non-blocking connect does not wait for room in a full backlog, it fails.
        whole, rest = divmod(max(1, int(bound * 1_000_000)), 1_000_000)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", whole, rest))
        sock.connect(str(path))
    except BlockingIOError:
        sock.close()
        deadline.left()
        raise ConnectionLost(f"{path}: no connection within {HELLO_SECONDS:g} s") from None
    except OSError as error:
        sock.close()
        remedy = "start the daemon (immured --state DIR), or point IMMURE_SOCKET at one"
        raise ConnectionLost(f"{path}: {error.strerror or error}", remedy) from None
    return sock


class Link:
    """One connection. Every method may be called from any thread."""

    def __init__(self, sock: socket.socket, daemon: PublicKey | None) -> None:
        self.session = Session(daemon)
        self._sock = sock
        self._frames = FrameReader()
        self._changed = threading.Condition()
        self._reading = False
        self._sending = threading.Lock()
        self._hello_due = time.monotonic() + HELLO_SECONDS

    @property
    def usable(self) -> bool:
        """Whether nothing has gone wrong yet."""
        return self.session.failure is None

    def hello(self, deadline: Deadline) -> Hello:
        """Waits for the hello."""
        while self.session.hello is None:
            self._read_or_wait(deadline, lambda: self.session.hello is not None)
        return self.session.hello

    def open(self, request: Request) -> Call:
        """Begins to expect answers; the calling thread is the one that will take them."""
        with self._changed:
            return self.session.open(request, threading.get_ident())

    def forget(self, call: Call) -> None:
        """Drops what still comes for `call`."""
        with self._changed:
            self.session.forget(call)
            self._changed.notify_all()

    def spoil(self, call: Call, error: Exception) -> None:
        """Makes whoever takes the call's events find `error` there."""
        with self._changed:
            call.events.append(error)
            self._changed.notify_all()

    def next(self, call: Call, deadline: Deadline) -> Data | Reply:
        """The call's next event. Raises NoReply, or the connection's failure once all that had come is taken."""
        while True:
            with self._changed:
                event = call.take()
                if event is not None:
                    self._changed.notify_all()
            if isinstance(event, Exception):
                raise event
            if event is not None:
                return event
            self._read_or_wait(deadline, lambda: bool(call.events))

    def send(self, body: bytes, fds: Sequence[int] = (), deadline: Deadline | None = None) -> None:
        """A whole frame. While the daemon takes none, what it says is read: neither side waits for the other."""
        deadline = deadline or Deadline(None)
        rest = memoryview(encode_frame(body))
        total = len(rest)
        with self._sender(deadline):
            try:
                while rest:
                    if self.session.failure is not None:
                        raise self.session.failure
                    try:
                        rest = rest[send_some(self._sock, rest, fds, wait=False) :]
                        fds = ()
                    except BlockingIOError:
                        self._until_writable(deadline)
                    except ConnectionError as error:
                        self._last_words(error, deadline)
            finally:
                if 0 < len(rest) < total:
                    self._fail(ConnectionLost("a frame was sent in part"))

    def close(self) -> None:
        """Ends the connection; whoever waits on it is told."""
        self._fail(ConnectionLost("the client closed the connection", ""))
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        with self._changed:
            while self._reading:
                self._changed.wait()
        self._sock.close()
        close_all(self._frames.held)

    def _read_or_wait(self, deadline: Deadline, done: Callable[[], bool]) -> None:
        """One step: lead, or wait until something changes. Returns for the caller to look again."""
        owner = threading.get_ident()
        with self._changed:
            if done():
                return
            if self.session.failure is not None:
                raise self.session.failure
            self.session.wait_begins(owner)
            try:
                if self._reading or self.session.congested:
                    self._changed.wait(deadline.left())
                    return
            finally:
                self.session.wait_ends(owner)
            self._reading = True
            self.session.wait_begins(owner)
        try:
            self._lead(deadline, done)
        finally:
            with self._changed:
                self.session.wait_ends(owner)
                self._reading = False
                self._changed.notify_all()

    def _lead(self, deadline: Deadline, done: Callable[[], bool]) -> None:
        """Reads for everybody until the leader has what it wants, or must let somebody catch up."""
        while True:
            left = self._left(deadline)
            if left is not None and not self._ready(select.POLLIN, left):
                continue
            if not self._read_some():
                continue
            with self._changed:
                if self.session.failure is not None or done() or self.session.congested:
                    return
                self._changed.notify_all()

    def _read_some(self) -> bool:
        """One read, by the leader alone; whether there is something new to look at."""
        try:
            frame = receive_some(self._sock, self._frames)
        except EndOfStream as end:
            with self._changed:
                self.session.ended(torn=end.torn)
            return True
        except OSError as error:
            self._fail(ConnectionLost(f"the connection broke: {error.strerror or error}"))
            return True
        except Refused as error:
            self._fail(ConnectionLost(f"the daemon sent no frame: {error.message}"))
            return True
        except BaseException:
            # An interrupt may have come between the read and the note of it: the stream is out of step from here on.
            self._fail(ConnectionLost("the reading was interrupted"))
            raise
        if frame is None:
            return False
        close_all(frame.fds)
        with self._changed, contextlib.suppress(ImmuredError):
            self.session.receive(frame.body)  # its failure is the session's: each who waits is told
        return True

    def _until_writable(self, deadline: Deadline) -> None:
        owner = threading.get_ident()
        with self._changed:
            self.session.wait_begins(owner)
            lead = not self._reading and not self.session.congested
            self._reading = self._reading or lead
            self._changed.notify_all()  # a pause that waited for this thread to take data need not wait now
        try:
            events = select.POLLOUT | (select.POLLIN if lead else 0)
            left = self._left(deadline)
            if not lead:
                left = _RELOOK if left is None else min(left, _RELOOK)
            found = self._ready(events, left)
            if lead and found & ~select.POLLOUT:
                self._read_some()
        finally:
            with self._changed:
                self.session.wait_ends(owner)
                if lead:
                    self._reading = False
                self._changed.notify_all()

    def _left(self, deadline: Deadline) -> float | None:
        """Seconds to wait at most. Raises NoReply; ConnectionLost, for everybody, when the hello is overdue."""
        left = deadline.left()
        if self.session.hello is not None:
            return left
        due = self._hello_due - time.monotonic()
        if due <= 0:
            error = silent()
            self._fail(error)
            raise error
        return due if left is None else min(left, due)

    def _ready(self, events: int, seconds: float | None) -> int:
        poll = select.poll()
        poll.register(self._sock, events)
        found = poll.poll(None if seconds is None else max(1, int(seconds * 1000)))
        return found[0][1] if found else 0

    def _last_words(self, error: ConnectionError, deadline: Deadline) -> None:
        """The daemon took no more: what it said before it closed is the better reason."""
        while self.session.failure is None:
            self._read_or_wait(deadline, lambda: self.session.failure is not None)
        raise self.session.failure from error

    def _fail(self, error: ConnectionLost) -> None:
        with self._changed:
            self.session.fail(error)
            self._changed.notify_all()

    @contextlib.contextmanager
    def _sender(self, deadline: Deadline) -> Iterator[None]:
        if not self._sending.acquire(blocking=False):
            self._wait_to_send(deadline)
        try:
            yield
        finally:
            self._sending.release()

    def _wait_to_send(self, deadline: Deadline) -> None:
        """Until no other thread sends. Whoever waits here takes no data, and the one that sends may need to read it:
        the daemon takes no more before what it says is read."""
        owner = threading.get_ident()
        with self._changed:
            self.session.wait_begins(owner)
            self._changed.notify_all()
        try:
            left = deadline.left()
            if not self._sending.acquire(timeout=-1 if left is None else left):
                raise deadline.passed()
        finally:
            with self._changed:
                self.session.wait_ends(owner)


_RELOOK = 0.2
"""Seconds after which a sender that may not read looks whether it may by now."""
