"""A socket that keeps whoever closes it last waiting, for longer than any test waits."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

from tests.patience import PATIENCE_S

__all__ = ["lingering"]


@contextlib.contextmanager
def lingering() -> Iterator[socket.socket]:
    """Its peer reads nothing, and it has more to send. Whoever passes it on closes it, or lets go of it, inside."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as lingers,
    ):
        lingers.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                lingers.send(bytes(1 << 16))
        lingers.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, round(5 * PATIENCE_S)))
        try:
            yield lingers
        finally:
            with contextlib.suppress(OSError):  # passed on and closed
                lingers.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
