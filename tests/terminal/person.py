"""A person at a terminal: types, looks, changes the window's size, sees what state the terminal is left in."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.patience import PATIENCE_S, until

__all__ = ["Person", "surroundings"]


def surroundings(**more: str) -> dict[str, str]:
    """A shell's environment, without what leads to another daemon."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("IMMURE", "SUDO_"))}
    return kept | {"TERM": "xterm", "LC_ALL": "C.UTF-8"} | more


class Person:
    """Runs a command on a terminal of its own. A shell leads the session and outlives the command, so that what the
    command leaves behind can be seen: the kernel resets a terminal whose session ends."""

    LEADER = '"$@"; echo "ended:$?"; exec cat'

    def __init__(
        self, command: Sequence[str], *, rows: int = 24, columns: int = 80, env: Mapping[str, str] | None = None
    ) -> None:
        ready, go = os.pipe()
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.read(ready, 1)
            os.execvpe("/bin/sh", ["sh", "-c", self.LEADER, "sh", *command], dict(env or surroundings()))
        os.close(ready)
        self.resize(rows, columns)
        self.before = self.settings()
        os.write(go, b"x")
        os.close(go)
        self.screen = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.master)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def settings(self) -> list[Any]:
        """The terminal's, as tcgetattr gives them."""
        return termios.tcgetattr(self.master)

    def resize(self, rows: int, columns: int) -> None:
        """The window's size changes, and whoever is in the foreground is told."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def see(self, pattern: bytes, seconds: float = PATIENCE_S) -> re.Match[bytes]:
        """Waits until it is on the screen, and takes it and what is before it away."""
        deadline = time.monotonic() + seconds
        while (found := re.search(pattern, self.screen)) is None:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.master], [], [], left)[0]:
                raise AssertionError(f"{pattern!r} did not come; there is {self.screen[-2000:]!r}")
            self.screen += os.read(self.master, 65_536)
        self.screen = self.screen[found.end() :]
        return found

    def all_until(self, end: bytes) -> bytes:
        """Everything up to `end`, however much."""
        pieces = [self.screen]
        tail = self.screen
        while end not in tail:
            assert select.select([self.master], [], [], PATIENCE_S)[0], f"{end!r} did not come after {tail[-200:]!r}"
            pieces.append(os.read(self.master, 65_536))
            tail = tail[-len(end) :] + pieces[-1]
        found, _, self.screen = b"".join(pieces).partition(end)
        return found

    def child(self) -> int:
        """The command's process: what the leader waits for."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        until(lambda: children.read_text().split())
        return int(children.read_text().split()[0])


IMMURE = [sys.executable, "-m", "immured.cli"]
