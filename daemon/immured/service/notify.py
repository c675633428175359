"""What systemd is told, where it is listening: sd_notify's datagram, without its library."""

from __future__ import annotations

import contextlib
import os
import socket
from functools import cache

__all__ = ["notify", "open_notifications"]


@cache
def open_notifications() -> socket.socket | None:
    """Connect to NOTIFY_SOCKET, before this process may open no socket any more; None where there is none."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return None
    if address.startswith("@"):
        address = "\0" + address[1:]
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        sock.connect(address)
    except OSError:
        sock.close()
        return None
    return sock


def notify(state: str) -> None:
    """Send `state` (`READY=1`, `STOPPING=1`) to NOTIFY_SOCKET; nothing where there is none, or nobody listens."""
    sock = open_notifications()
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.send(state.encode())
