"""What learning asks the host, as the caller: what is there, what the caller may do with it. The only I/O of it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

__all__ = ["Host", "roots"]

_CLOSED: Final = frozenset(
    "bin boot dev etc lib lib32 lib64 libx32 lost+found proc run sbin sys tmp usr var snap".split()
)
"""Directories that a learning run does not show: every run has its own of most, nobody grants the rest whole."""


class Host:
    """Questions about host paths, each asked once."""

    def __init__(self) -> None:
        self._kinds: dict[str, str] = {}

    def kind(self, path: str) -> str:
        """`dir`, `file`, `other`, or `none` where there is nothing that a bind could open; links are followed."""
        if path not in self._kinds:
            try:
                mode = Path(path).stat().st_mode
            except (OSError, ValueError):
                self._kinds[path] = "none"
            else:
                self._kinds[path] = "dir" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"
        return self._kinds[path]

    def readable(self, path: str) -> bool:
        """Whether the caller can open it to read."""
        return os.access(path, os.R_OK)

    def writable(self, path: str) -> bool:
        """Whether a bind of it can be written: the caller's own, of a group of theirs, and with the bits for it."""
        try:
            held = Path(path).stat()
            # A group that no mapping has keeps everybody from writing, whatever the mode says.
            ours = held.st_uid == os.geteuid() and held.st_gid in (os.getegid(), *os.getgroups())
            return ours and os.access(path, os.W_OK)
        except OSError:
            return False

    def interpreter(self, path: str) -> str | None:
        """What a script names behind `#!`; the kernel opens that itself, and no notifier sees it."""
        try:
            with Path(path).open("rb") as file:
                line = file.read(256).split(b"\n", 1)[0]
        except OSError:
            return None
        words = line[2:].split() if line.startswith(b"#!") else []
        return os.fsdecode(words[0]) if words else None


def roots(here: str, home: str | None, more: tuple[str, ...] = ()) -> list[str]:
    """The directories that a learning run shows: those at the top of the host that the caller can list, its home, the
    current directory, and `more`. None beneath another."""
    top = [str(one) for one in sorted(Path("/").iterdir()) if one.name not in _CLOSED and not one.is_symlink()]
    wanted = [*top, *more]
    wanted += [path for path in (home, here) if path and path != "/" and path.split("/")[1] in ("tmp", "var", "run")]
    found: list[str] = []
    for path in sorted(set(wanted), key=lambda one: one.count("/")):
        covered = any(path == one or path.startswith(one + "/") for one in found)
        if not covered and Path(path).is_dir() and os.access(path, os.R_OK | os.X_OK):
            found.append(path)
    return found
