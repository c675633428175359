"""The thin I/O around `frames`: recvmsg and sendmsg with descriptors, for blocking and non-blocking stream sockets."""

from __future__ import annotations

import array
import contextlib
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from immured.errors import Refused
from immured.wire.frames import Frame, FrameReader

__all__ = ["EndOfStream", "close_all", "receive_some", "send_some"]

_INT: Final = array.array("i").itemsize
_ANCILLARY: Final = socket.CMSG_SPACE(253 * _INT)  # SCM_MAX_FD


class EndOfStream(Exception):
    """The peer closed; `torn` when it was inside a frame."""

    def __init__(self, *, torn: bool) -> None:
        super().__init__("the stream ended inside a frame" if torn else "the stream ended")
        self.torn = torn


def receive_some(
    sock: socket.socket,
    reader: FrameReader,
    *,
    close: Callable[[Iterable[int]], None] | None = None,
) -> Frame | None:
    """One recvmsg for `reader`, never past the end of a header or body; the frame, when it is whole.

    Descriptors come close-on-exec. Raises EndOfStream; Refused (every descriptor that came was given to `close`, by
    default `close_all`); BlockingIOError and other OSError as the socket does.
    """
    close = close or close_all
    # Room for all that one message can carry: what the kernel must drop, it closes here and now, which may take long.
    data, ancillary, flags, _ = sock.recvmsg(reader.wanted(), _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
    fds = _descriptors(ancillary) if ancillary else ()
    if not data:
        close(fds)
        torn = not reader.at_boundary
        close(reader.take_held())
        raise EndOfStream(torn=torn)
    try:
        return reader.feed(data, fds, truncated=bool(flags & socket.MSG_CTRUNC))
    except Refused:
        # Each once: a number is somebody else's as soon as it is closed, and `close` may take its time.
        close(dict.fromkeys((*fds, *reader.take_held())))
        raise


def send_some(sock: socket.socket, data: bytes | memoryview, fds: Sequence[int] = (), *, wait: bool = True) -> int:
    """One send of a frame's bytes; `fds` only with its first byte. How many bytes went; BlockingIOError when none can,
    on a non-blocking socket or without `wait` (a socket with a timeout waits all the same).

    MSG_NOSIGNAL: a peer that went away is an error here, not a signal.
    """
    flags = socket.MSG_NOSIGNAL if wait else socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT
    if not fds:
        return sock.send(data, flags)
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
    return sock.sendmsg([data], ancillary, flags)


def close_all(fds: Iterable[int]) -> None:
    """Closes each, whatever close says: the number is free afterwards in every case."""
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> tuple[int, ...]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % _INT])
    return tuple(fds)
