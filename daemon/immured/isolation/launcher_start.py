"""The launcher's process: its command line, how it is started, and how one that lives on is found."""

from __future__ import annotations

import os
import signal
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from immured.isolation.sealed import sealed_memfd

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Settings", "connect", "start"]


@dataclass(frozen=True, slots=True)
class Settings:
    """The launcher's command line. `control`: where a later broker finds it, and then `broker_uid`, whose that place
    is; `locks` (locked files) stay open in it, so that they outlive a broker that died first; `orphan_ms`: how long
    sandboxes live on without a broker."""

    socket: Path
    slot_base: int
    slot_count: int
    cgroup: Path | None
    locks: Sequence[int]
    pool_min: int
    pool_max: int
    grant_read: Sequence[Path] = ()
    grant_write: Sequence[Path] = ()
    storage: Path | None = None
    open_timeout_ms: int | None = None
    max_connections: int | None = None
    control: Path | None = None
    broker_uid: int | None = None
    orphan_ms: int | None = None

    def arguments(self) -> list[str]:
        """As words, without the program's name."""
        single: dict[str, object] = {
            "socket": os.fspath(self.socket),
            "slot-base": self.slot_base,
            "slot-count": self.slot_count,
            "pool-min": self.pool_min,
            "pool-max": self.pool_max,
            "cgroup": None if self.cgroup is None else os.fspath(self.cgroup),
            "storage": None if self.storage is None else os.fspath(self.storage),
            "open-timeout-ms": self.open_timeout_ms,
            "max-connections": self.max_connections,
            "control": None if self.control is None else os.fspath(self.control),
            "broker-uid": self.broker_uid,
            "orphan-ms": self.orphan_ms,
        }
        several: dict[str, Sequence[object]] = {
            "lock-fd": self.locks,
            "grant-read": [os.fspath(path) for path in self.grant_read],
            "grant-write": [os.fspath(path) for path in self.grant_write],
        }
        words = [word for name, value in single.items() if value is not None for word in (f"--{name}", str(value))]
        words += [word for name, values in several.items() for value in values for word in (f"--{name}", str(value))]
        return words


def start(executable: Path, settings: Settings) -> tuple[socket.socket, int]:
    """Start a sealed copy of `executable`: our end of its socket, and its process id. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    with theirs:
        words = ["immured-launcher", "--control-fd", str(theirs.fileno()), *settings.arguments()]
        try:
            image = sealed_memfd("immured-launcher", executable.read_bytes(), executable=True)
            try:
                return ours, _spawn(image, words, theirs.fileno(), *settings.locks)
            finally:
                os.close(image)
        except OSError:
            ours.close()
            raise


def connect(control: Path) -> tuple[socket.socket, int] | None:
    """The launcher that lives at `control` (a path of any length): our end, and its process id. None: there is none.

    Whether it takes us shows when it says READY, or closes.
    """
    # A path of any length fits no address: the directory is named by its descriptor.
    try:
        directory = os.open(control.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{directory}/{control.name}")
        size = struct.calcsize("=iII")
        pid, _, _ = struct.unpack("=iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(directory)
    return sock, pid


def _spawn(image: int, words: list[str], *inherited: int) -> int:
    """Start it with these descriptors beside 0 (/dev/null), 1 and 2; its process id."""
    return os.posix_spawn(
        f"/proc/self/fd/{image}",
        words,
        {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            # a descriptor duplicated onto itself loses its close-on-exec flag
            *((os.POSIX_SPAWN_DUP2, fd, fd) for fd in inherited),
        ],
        setsid=True,  # a terminal's Ctrl-C is the broker's to handle
        setsigmask=[],
        setsigdef=[one for one in signal.valid_signals() if one not in (signal.SIGKILL, signal.SIGSTOP)],
    )
