"""What systemd is told, and what it hands over: sd_notify's datagram and sd_listen_fds, without its library."""

from __future__ import annotations

import contextlib
import os
import socket
from functools import cache
from typing import Final

from immured.errors import ConfigurationError

__all__ = ["listen_descriptor", "notify", "open_notifications", "watchdog_interval"]

_FIRST: Final = 3  # SD_LISTEN_FDS_START


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


def listen_descriptor() -> int | None:
    """The socket that systemd listens at for this process (LISTEN_FDS, LISTEN_PID), or None. Raises ConfigurationError
    `bad_configuration` where there are several, or it is no listening stream socket."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    count = os.environ.get("LISTEN_FDS", "")
    try:
        with socket.socket(fileno=os.dup(_FIRST)) as sock:
            usable = (
                count == "1"
                and sock.family == socket.AF_UNIX
                and sock.type == socket.SOCK_STREAM
                and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
            )
    except OSError:
        usable = False
    if not usable:
        raise ConfigurationError(
            "bad_configuration",
            f"LISTEN_FDS={count}: descriptor {_FIRST} has to be the one listening unix stream socket",
            "give the socket unit one ListenStream= that is a path",
        )
    return _FIRST


def watchdog_interval() -> float | None:
    """Seconds between two `WATCHDOG=1`, half of what systemd allows this process; None where it does not watch."""
    pid, allowed = os.environ.get("WATCHDOG_PID"), os.environ.get("WATCHDOG_USEC", "")
    if not allowed.isdecimal() or int(allowed) == 0 or pid not in (None, str(os.getpid())):
        return None
    return int(allowed) / 2e6
