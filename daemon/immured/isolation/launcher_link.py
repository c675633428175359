"""One SEQPACKET socket to the launcher or its wardens: whole packets with descriptors, both ways, never blocking.

What the socket does not take waits in order. Descriptors that are given to `send` are only borrowed; of those that
come, whoever takes the packet removes from the list what he keeps, and the rest is closed.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import os
import socket
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from immured.isolation import abi, messages
from immured.isolation.messages import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Link", "close_all"]

_MAX_DESCRIPTORS: Final = 253  # SCM_MAX_FD
_FULL: Final = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ETOOMANYREFS})
_RETRY_S: Final = 0.005  # for a full socket that never becomes writable because nothing of ours is queued in it


@dataclass(slots=True)
class _Packet:
    data: bytes
    fds: list[int] = field(default_factory=list)  # duplicates, ours to close


class Link:
    """One socket. `take(kind, number, body, fds)` hears each packet, `ended` the end of file, once; `broken` why
    nothing can be sent or read any more, or what was said against the protocol."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        burst: int,
        take: Callable[[int, int, bytes, list[int]], None],
        ended: Callable[[], None],
        broken: Callable[[str], None],
    ) -> None:
        """`sock` becomes ours; at most `burst` packets are taken at a wake-up."""
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._burst = burst
        self._take = take
        self._ended = ended
        self._broken = broken
        self._queue: deque[_Packet] = deque()
        self._closed = False
        sock.setblocking(False)
        self._loop.add_reader(sock, self.read)

    def close(self) -> None:
        """Release the socket and what is queued. Twice is once."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        for packet in self._queue:
            close_all(packet.fds)
        self._queue.clear()

    def hear_no_more(self) -> None:
        """Nothing is read any more; what is queued still goes."""
        self._loop.remove_reader(self._sock)

    # -- sending

    @property
    def waits(self) -> bool:
        """Whether something is queued."""
        return bool(self._queue)

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """One packet. Raises OSError (EMFILE), with nothing sent."""
        if not self._queue and self._try_send(data, fds):
            return
        held: list[int] = []
        try:
            for fd in fds:
                held.append(os.dup(fd))  # noqa: PERF401 - what was duplicated before a failure must be closed
        except OSError:
            close_all(held)
            raise
        self._queue.append(_Packet(data, held))
        if len(self._queue) == 1:
            self._await_room()

    def _try_send(self, data: bytes, fds: Sequence[int]) -> bool:
        """False where the socket is full for now. A launcher that is gone counts as sent: its end is told elsewhere."""
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self._sock.sendmsg([data], control, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        except OSError as error:
            if error.errno in _FULL:
                return False
            if error.errno not in (errno.EPIPE, errno.ECONNRESET):
                raise
        return True

    def _await_room(self) -> None:
        self._loop.add_writer(self._sock, self._writable)

    def _writable(self) -> None:
        while self._queue:
            packet = self._queue[0]
            try:
                if not self._try_send(packet.data, packet.fds):
                    # writable and yet full is a shortage elsewhere (memory, descriptors in flight): do not spin on it
                    self._loop.remove_writer(self._sock)
                    self._loop.call_later(_RETRY_S, self._retry)
                    return
            except OSError as error:
                self._broken(f"cannot send to the launcher: {error.strerror or error}")
                return
            self._queue.popleft()
            close_all(packet.fds)
        self._loop.remove_writer(self._sock)

    def _retry(self) -> None:
        if not self._closed and self._queue:
            self._await_room()

    # -- receiving

    def read(self) -> bool:
        """Take what has come, up to a burst. Whether more may be waiting."""
        for _ in range(self._burst):
            if self._closed:
                return False
            try:
                data, control, flags, _ = self._sock.recvmsg(
                    abi.MAX_PACKET,
                    socket.CMSG_SPACE(4 * _MAX_DESCRIPTORS),
                    socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC,
                )
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:
                self._broken(f"cannot read from the launcher: {error.strerror or error}")
                return False
            fds = _descriptors(control)
            if not data:
                close_all(fds)
                self.hear_no_more()
                self._ended()
                return False
            try:
                self._take(*_opened(data, flags), fds)
            except ProtocolError as error:
                self._broken(str(error))
                return False
            finally:
                close_all(fds)
        return True


def close_all(fds: Iterable[int]) -> None:
    """Close them, whatever became of each."""
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


def _opened(data: bytes, flags: int) -> tuple[int, int, bytes]:
    """A packet's type, number and body. Raises ProtocolError."""
    if flags & socket.MSG_TRUNC or len(data) < messages.HEADER.size:
        raise ProtocolError("the launcher sent a packet out of size")
    kind, length, number = messages.HEADER.unpack_from(data)
    if length != len(data):
        raise ProtocolError(f"the launcher sent {len(data)} bytes and announced {length}")
    return kind, number, data[messages.HEADER.size :]


def _descriptors(control: Iterable[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found.tolist()
