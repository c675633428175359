"""The kinds of descriptor that a caller may pass as a payload's 0, 1 or 2: pipes, regular files, connected streams.

Looking at one asks nobody: a file system that belongs to another process could keep whoever asks waiting for good.
Flags are left as they are: O_NONBLOCK belongs to the open file, which the caller shares.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections.abc import Sequence

from immured.errors import Refused
from immured.host.statx import LOCAL, file_system_of, mode_of

__all__ = ["check_descriptors", "kind_of_descriptor"]

_REMEDY = "pass a pipe, a regular file of a local disk or a connected stream socket; anything else, the client pumps"


def check_descriptors(fds: Sequence[int], places: Sequence[int]) -> None:
    """Whether each of `fds` may be the payload's descriptor at the same index of `places`.

    Raises Refused `bad_descriptor`, naming the place and the kind.
    """
    if len(fds) != len(places):
        raise Refused(
            "bad_descriptor",
            f"args.fds names {len(places)} descriptors, and {len(fds)} came along",
            "send them with the frame's first byte, in the order of args.fds",
        )
    for fd, place in zip(fds, places, strict=True):
        problem = kind_of_descriptor(fd)
        if problem is not None:
            raise Refused(
                "bad_descriptor",
                f"what was passed as descriptor {place} is {problem}",
                _REMEDY,
                details={"descriptor": place, "kind": problem},
            )


def kind_of_descriptor(fd: int) -> str | None:
    """None for a kind that may be passed; else what it is, for a message."""
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH:
        return "an O_PATH descriptor"
    mode = mode_of(fd)
    if stat.S_ISFIFO(mode):
        return None
    if stat.S_ISREG(mode):
        return _regular(fd)
    if stat.S_ISSOCK(mode):
        return _socket(fd)
    if stat.S_ISDIR(mode):
        return "a directory"
    if stat.S_ISCHR(mode):
        return "a terminal" if os.isatty(fd) else "a character device"
    return "a block device" if stat.S_ISBLK(mode) else "no file"


def _regular(fd: int) -> str | None:
    # Namespaces, pidfds and the like call themselves regular files; only what has a path is one.
    name = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 - it may be no path at all
    if not name.startswith("/"):
        return f"no file but {name[:40]}"
    kind = file_system_of(fd)
    if kind is None:
        return "a file of a mount that the daemon does not see"
    return None if kind in LOCAL else f"a file of {kind}, which is no local disk"


def _socket(fd: int) -> str | None:
    with socket.socket(fileno=os.dup(fd)) as sock:
        if sock.type != socket.SOCK_STREAM:
            return "a socket that is no stream"
        try:
            sock.getpeername()
        except OSError:
            return "a socket that is not connected"
    return None
