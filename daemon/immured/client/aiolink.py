"""A connection for asyncio: one reader callback, descriptors included (asyncio's own streams drop them)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path

from immured.client.errors import ConnectionLost
from immured.client.link import HELLO_SECONDS, silent
from immured.client.session import Call, Request, Session
from immured.errors import ImmuredError, Refused
from immured.wire.frames import FrameReader, encode_frame
from immured.wire.keys import PublicKey
from immured.wire.messages import Data, Hello, Reply
from immured.wire.sockets import EndOfStream, close_all, receive_some, send_some

__all__ = ["AsyncLink", "connect_socket"]

_READS = 32
"""Reads per turn of the loop: one busy connection leaves time for the others."""


async def connect_socket(path: Path) -> socket.socket:
    """A connected non-blocking stream socket. Raises ConnectionLost when nobody listens there."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        await asyncio.get_running_loop().sock_connect(sock, str(path))
    except OSError as error:
        sock.close()
        remedy = "start the daemon (immured --state DIR), or point IMMURE_SOCKET at one"
        raise ConnectionLost(f"{path}: {error.strerror or error}", remedy) from None
    except BaseException:
        sock.close()
        raise
    return sock


class AsyncLink:
    """One connection, of one event loop."""

    def __init__(self, sock: socket.socket, daemon: PublicKey | None) -> None:
        self.session = Session(daemon)
        self._sock = sock
        self._frames = FrameReader()
        self._loop = asyncio.get_running_loop()
        self._changed: set[asyncio.Future[None]] = set()
        self._sending = asyncio.Lock()
        self._finishing: asyncio.Task[None] | None = None
        self._paused = False
        self._closed = False
        self._gone = False
        self._loop.add_reader(sock, self._readable)
        self._patience = self._loop.call_later(HELLO_SECONDS, self._overdue)

    @property
    def usable(self) -> bool:
        """Whether nothing has gone wrong yet."""
        return self.session.failure is None

    async def hello(self) -> Hello:
        """Waits for the hello."""
        while self.session.hello is None:
            await self._change()
        return self.session.hello

    def open(self, request: Request) -> Call:
        """Begins to expect answers; the calling task is the one that will take them."""
        return self.session.open(request, asyncio.current_task())

    def forget(self, call: Call) -> None:
        """Drops what still comes for `call`."""
        self.session.forget(call)
        self._resume()

    def spoil(self, call: Call, error: Exception) -> None:
        """Makes whoever takes the call's events find `error` there."""
        call.events.append(error)
        self._tell()

    async def next(self, call: Call) -> Data | Reply:
        """The call's next event. Raises the connection's failure once all that had come is taken."""
        while not call.events:
            await self._change()
        event = call.take()
        self._resume()
        if isinstance(event, Data | Reply):
            return event
        raise event if event is not None else ConnectionLost("the call was forgotten")

    async def send(self, body: bytes, fds: Sequence[int] = ()) -> None:
        """A whole frame. One that has begun is sent to its end, also when the caller is cancelled meanwhile."""
        frame = memoryview(encode_frame(body))
        with self._waits():  # whoever sends now may need what comes meanwhile to be read
            await self._sending.acquire()
        try:
            if self.session.failure is not None:
                raise self.session.failure
            rest = self._push(frame, fds)
        except BaseException:
            self._sending.release()
            raise
        if not rest:
            self._sending.release()
            return
        self._finishing = self._loop.create_task(self._send_rest(rest, fds if rest is frame else ()))
        with self._waits():
            await asyncio.shield(self._finishing)
        if self.session.failure is not None:
            raise self.session.failure

    def _push(self, rest: memoryview, fds: Sequence[int]) -> memoryview:
        """Sends what goes out at once, and gives the rest."""
        while rest:
            try:
                rest = rest[send_some(self._sock, rest, fds, wait=False) :]
            except BlockingIOError:
                break
            except ConnectionError:
                self._gone = True  # the reader has the better reason
                break
            fds = ()
        return rest

    async def _send_rest(self, rest: memoryview, fds: Sequence[int]) -> None:
        try:
            while rest and self.usable:
                await (self._wait(self._future()) if self._gone else self._writable())
                left = self._push(rest, fds)
                rest, fds = left, (fds if left is rest else ())
        finally:
            self._sending.release()

    def close(self) -> None:
        """Ends the connection; whoever waits on it is told."""
        self._fail(ConnectionLost("the client closed the connection", ""))
        if not self._closed:
            self._closed = True
            self._patience.cancel()
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()
            close_all(self._frames.held)

    async def _change(self) -> None:
        """Until something has come. Raises the connection's failure."""
        if self.session.failure is not None:
            raise self.session.failure
        with self._waits():
            await self._wait(self._future())

    async def _writable(self) -> None:
        future = self._future()
        self._loop.add_writer(self._sock, self._done, future)
        try:
            await self._wait(future)
        finally:
            if not self._closed:
                self._loop.remove_writer(self._sock)

    async def _wait(self, future: asyncio.Future[None]) -> None:
        try:
            await future
        finally:
            self._changed.discard(future)

    @contextlib.contextmanager
    def _waits(self) -> Iterator[None]:
        """Marks the calling task as one that waits, and so cannot be taking another call's data."""
        owner: Hashable = asyncio.current_task()
        self.session.wait_begins(owner)
        self._resume()
        try:
            yield
        finally:
            self.session.wait_ends(owner)

    def _future(self) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        self._changed.add(future)
        return future

    @staticmethod
    def _done(future: asyncio.Future[None]) -> None:
        if not future.done():
            future.set_result(None)

    def _tell(self) -> None:
        for future in self._changed:
            self._done(future)

    def _resume(self) -> None:
        if self._paused and not self._closed and self.usable and not self.session.congested:
            self._paused = False
            self._loop.add_reader(self._sock, self._readable)

    def _readable(self) -> None:
        for _ in range(_READS):
            try:
                frame = receive_some(self._sock, self._frames)
            except BlockingIOError:
                break
            except EndOfStream as end:
                self.session.ended(torn=end.torn)
            except OSError as error:
                self.session.fail(ConnectionLost(f"the connection broke: {error.strerror or error}"))
            except Refused as error:
                self.session.fail(ConnectionLost(f"the daemon sent no frame: {error.message}"))
            else:
                if frame is not None:
                    close_all(frame.fds)
                    with contextlib.suppress(ImmuredError):
                        self.session.receive(frame.body)  # its failure is the session's: each who waits is told
            if not self.usable or self.session.congested:
                self._paused = True
                self._loop.remove_reader(self._sock)
                break
        self._tell()

    def _overdue(self) -> None:
        if self.session.hello is None:
            self._fail(silent())

    def _fail(self, error: ConnectionLost) -> None:
        self.session.fail(error)
        self._tell()
