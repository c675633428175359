"""The host as a policy of another tool means it: what adapters ask. Nothing here raises."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
from collections.abc import Iterator, Mapping

__all__ = ["Here"]

_MAX_TEXT = 1 << 20
_MAX_WALK = 200_000


class Here:
    """Looked at when asked. `cwd`: relative paths of a policy start there; None: where this process stands."""

    def __init__(self, cwd: str | None = None, environment: Mapping[str, str] = os.environ) -> None:
        self.environment = environment
        self.cwd = os.path.realpath(cwd or os.getcwd())  # noqa: PTH109 - text, as all paths here
        self.home = _home(environment)

    def kind(self, path: str) -> str | None:
        try:
            mode = os.lstat(path).st_mode
        except (OSError, ValueError):
            return None
        kinds = {stat.S_IFDIR: "directory", stat.S_IFREG: "file", stat.S_IFLNK: "link"}
        return kinds.get(stat.S_IFMT(mode), "other")

    def owner(self, path: str) -> int | None:
        try:
            return os.stat(path).st_uid  # noqa: PTH116
        except (OSError, ValueError):
            return None

    def real(self, path: str) -> str:
        try:
            return os.path.realpath(path)
        except (OSError, ValueError):
            return path

    def text(self, path: str) -> str | None:
        try:
            with open(path, "rb") as file:  # noqa: PTH123
                raw = file.read(_MAX_TEXT + 1)
        except (OSError, ValueError):
            return None
        return raw.decode("utf-8", "surrogateescape") if len(raw) <= _MAX_TEXT else None

    def program(self, name: str) -> str | None:
        return shutil.which(name, path=self.environment.get("PATH"))

    def walk(self, top: str, depth: int) -> Iterator[str]:
        seen, layer = 0, [top]
        for _ in range(depth):
            below: list[str] = []
            for directory in layer:
                try:
                    entries = list(os.scandir(directory))
                except OSError:
                    continue
                for entry in entries:
                    seen += 1
                    if seen > _MAX_WALK:
                        return
                    yield entry.path
                    if entry.is_dir(follow_symlinks=False):
                        below.append(entry.path)
            layer = below


def _home(environment: Mapping[str, str]) -> str:
    """HOME where it is ours, which it is not for root that acts for somebody; else what passwd says."""
    said = environment.get("HOME", "")
    try:
        if os.stat(said).st_uid != os.geteuid():  # noqa: PTH116
            said = pwd.getpwuid(os.geteuid()).pw_dir
    except (OSError, KeyError, ValueError):
        pass
    return os.path.normpath(said) if said.startswith("/") else "/"
