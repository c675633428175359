"""A process of the daemon's beside the broker: forked while there is root to begin with, told what to do by a socket.

It holds nothing of the broker's: no lock, no client's socket, no key. It takes orders one after the other, as maps in
msgpack, and ends when the broker does.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import msgpack

from immured.errors import ImmuredError

__all__ = ["MAX_MESSAGE", "Offshoot", "Orders", "start"]

MAX_MESSAGE: Final = 1 << 17
_UMASK: Final = 0o027
_STDERR: Final = 2


class Orders:
    """The offshoot's end: what the broker says, and what it is answered."""

    def __init__(self, orders: socket.socket) -> None:
        self._socket = orders

    def next(self) -> dict[str, Any] | None:
        """The next order; None: the broker is gone, perhaps with an answer unread."""
        try:
            order = self._socket.recv(MAX_MESSAGE)
        except ConnectionResetError:
            return None
        found: dict[str, Any] | None = msgpack.unpackb(order) if order else None
        return found

    def say(self, message: Mapping[str, object]) -> None:
        """Answer. Nobody may be there any more."""
        with contextlib.suppress(BrokenPipeError):
            self._socket.sendall(msgpack.packb(message))


@dataclass(slots=True)
class Offshoot:
    """The broker's end: the socket (SOCK_SEQPACKET, not blocking), the process, what it is called in messages."""

    name: str
    socket: socket.socket
    pid: int

    def order(self, message: Mapping[str, object]) -> None:
        """Have it do something. Raises OSError: it is gone."""
        self.socket.sendall(msgpack.packb(message))

    def answer(self) -> dict[str, Any] | None:
        """What it says now; None: it is gone. Raises BlockingIOError: nothing."""
        try:
            said = self.socket.recv(MAX_MESSAGE)
        except BlockingIOError:
            raise
        except OSError:
            return None
        found: dict[str, Any] | None = msgpack.unpackb(said) if said else None
        return found

    def close(self) -> None:
        """Have it end, and take note if it has."""
        self.socket.close()
        self.reap()

    def reap(self) -> int | None:
        """How it ended (`os.waitpid`'s status), None while it lives."""
        with contextlib.suppress(ChildProcessError):
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            return status if pid else None
        return None


def start(name: str, kept: Collection[int], confine: Callable[[], None], serve: Callable[[Orders], None]) -> Offshoot:
    """Fork one: `confine` has it give up being root, then `serve` takes orders for as long as there are any. Of the
    descriptors it has but `kept`. Called as root, with one thread. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        pid = os.fork()
        if pid == 0:
            _be(name, theirs, kept, confine, serve)
    finally:
        theirs.close()
    ours.setblocking(False)
    return Offshoot(name, ours, pid)


def _be(
    name: str,
    orders: socket.socket,
    kept: Collection[int],
    confine: Callable[[], None],
    serve: Callable[[Orders], None],
) -> NoReturn:
    """The child: nothing of the daemon's goes on in it."""
    status = 1
    try:
        gc.disable()
        gc.freeze()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # it ends when the broker has no more orders, its last ones included
        signal.set_wakeup_fd(-1)
        _close_all_but({*kept, orders.fileno()})
        os.umask(_UMASK)
        confine()
        gc.enable()
        serve(Orders(orders))
        status = 0
    except BaseException as error:  # noqa: BLE001 - nothing may get out of here into the daemon's own code
        reason = error.message if isinstance(error, ImmuredError) else repr(error)
        os.write(_STDERR, f"immured: {name} ended: {reason}\n".encode(errors="replace"))
    finally:
        os._exit(status)


def _close_all_but(kept: set[int]) -> None:
    """A lock that is held by a descriptor is held by all copies of it."""
    first = _STDERR + 1
    for fd in sorted(kept):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, 1 << 30)
