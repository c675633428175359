"""From paths that were asked for to the grants that they need. Pure but for what it asks of `Host`."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from posixpath import dirname, normpath
from typing import TYPE_CHECKING, Final, Protocol

from immured.learning.secret import IN_HOME, is_secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Asker", "Grants", "grants_of", "lies_beneath"]

COLLAPSE: Final = 6
"""So many files of one directory are granted as the directory."""
REPOSITORIES: Final = (".git", ".hg", ".svn")
MOST: Final = 192
"""Paths of a learned manifest, of the 256 that one may have: directories stand for their files until it is so few."""


class Asker(Protocol):
    """What is asked of the host: see `immured.learning.host.Host`."""

    def kind(self, path: str) -> str: ...

    def readable(self, path: str) -> bool: ...

    def writable(self, path: str) -> bool: ...

    def interpreter(self, path: str) -> str | None: ...


@dataclass(slots=True)
class Grants:
    """Each path with why. `exists`: directories that are only known to be there. `withheld`: asked for and not granted.

    `hide`: secrets within what is granted.
    """

    read: dict[str, str] = field(default_factory=dict)
    write: dict[str, str] = field(default_factory=dict)
    exists: dict[str, str] = field(default_factory=dict)
    hide: dict[str, str] = field(default_factory=dict)
    withheld: dict[str, str] = field(default_factory=dict)


def lies_beneath(path: str, directory: str) -> bool:
    """Whether `path` is `directory` or something in it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def grants_of(
    paths: Mapping[str, Sequence[str | bytes]],
    shown: Sequence[str],
    home: str | None,
    host: Asker,
    granted: Iterable[str] = (),
    writable: Iterable[str] = (),
) -> Grants:
    """`paths` is `learned.paths` of a result; `shown` the directories that the run saw; `granted` and `writable` are
    places that the manifest which the run began with lets be read, and be written, already."""
    return _Sorting(tuple(shown), home, host, frozenset(granted), frozenset(writable)).sort(paths)


class _Sorting:
    def __init__(
        self, shown: tuple[str, ...], home: str | None, host: Asker, granted: frozenset[str], writable: frozenset[str]
    ) -> None:
        self._shown, self._home, self._host = shown, home, host
        self._granted, self._writable = granted | writable, writable
        self._found = Grants()

    def sort(self, paths: Mapping[str, Sequence[str | bytes]]) -> Grants:
        asked = {did: self._places(names) for did, names in paths.items()}
        for path in asked.get("write", ()):
            self._written(path)
        for path in asked.get("name", ()):
            self._write(self._existing(dirname(path)), f"names in it change: {path}")
        for path in asked.get("exec", ()):
            self._read(path, "executed")
            interpreter = self._host.interpreter(path)
            if interpreter is not None and self._is_shown(interpreter):
                self._read(interpreter, f"interprets {path}")
        for path in asked.get("read", ()):
            self._read(path, "listed" if self._host.kind(path) == "dir" else "read")
        self._repositories()
        self._collapse()
        for path in asked.get("look", ()):
            self._looked(path)
        self._collapse()
        self._hide()
        return self._found

    # --- one path

    def _places(self, names: Sequence[str | bytes]) -> list[str]:
        places = (normpath(name) for name in names if isinstance(name, str) and name.startswith("/"))
        return sorted({one for one in places if self._is_shown(one)})

    def _is_shown(self, path: str) -> bool:
        return any(lies_beneath(path, one) for one in self._shown)

    def _existing(self, path: str) -> str:
        while path != "/" and self._host.kind(path) == "none":
            path = dirname(path)
        return path

    def _is_whole(self, path: str) -> bool:
        """What nobody grants because something in it was asked for: the home, what holds it, and the host's top."""
        return path.count("/") < 2 or (self._home is not None and lies_beneath(self._home, path))

    def _written(self, path: str) -> None:
        kind = self._host.kind(path)
        if kind in ("file", "dir"):
            self._write(path, "written")
        elif kind == "none":
            self._write(self._existing(dirname(path)), f"made: {path}")

    def _write(self, path: str, why: str) -> None:
        if any(lies_beneath(path, one) for one in self._writable):
            return
        if is_secret(path, self._home):
            self._withhold(path, "looks like a secret, and was written")
        elif self._host.kind(path) == "dir" and self._is_whole(path):
            self._withhold(path, f"would be the whole of it ({why}); write = [...] if that is meant")
        elif self._host.writable(path):
            self._found.write.setdefault(path, why)

    def _read(self, path: str, why: str) -> None:
        kind = self._host.kind(path)
        if kind not in ("file", "dir") or not self._host.readable(path):
            return
        if is_secret(path, self._home):
            self._withhold(path, f"looks like a secret, and was {why}")
        elif self._is_granted(path):
            return
        elif kind == "dir" and self._is_whole(path):
            self._withhold(path, f"would be the whole of it ({why}); read = [...] if that is meant")
        else:
            self._found.read.setdefault(path, why)

    def _looked(self, path: str) -> None:
        """A file is granted; of a directory only that it is there, unless something granted is in it or above."""
        if self._host.kind(path) == "file":
            self._read(path, "looked at")
        elif self._host.kind(path) == "dir" and not self._is_granted(path) and not is_secret(path, self._home):
            granted = (*self._found.read, *self._found.write, *self._granted)
            if not any(lies_beneath(one, path) for one in granted) and self._host.readable(path):
                self._found.exists.setdefault(path, "looked at")

    def _withhold(self, path: str, why: str) -> None:
        self._found.withheld.setdefault(path, why)

    def _is_granted(self, path: str) -> bool:
        return any(lies_beneath(path, one) for one in (*self._found.read, *self._found.write, *self._granted))

    # --- all of them

    def _repositories(self) -> None:
        """Version control looks at who owns its repository and the tree around it: a directory that only leads to what
        is granted is nobody's."""
        for path in [*self._found.read, *self._found.write]:
            for name in REPOSITORIES:
                tree, separator, _ = path.partition(f"/{name}/")
                if separator and self._is_shown(tree):
                    self._read(tree, f"a repository, {name}, whose owner counts")

    def _collapse(self) -> None:
        found = self._found
        found.write = _outermost(found.write)
        least = COLLAPSE
        while True:
            inner = {one for one in found.read if any(lies_beneath(one, other) for other in found.write)}
            found.read = _outermost({one: why for one, why in found.read.items() if one not in inner})
            groups: dict[str, list[str]] = defaultdict(list)
            for one in found.read:
                groups[dirname(one)].append(one)
            many = {place: ones for place, ones in groups.items() if len(ones) >= least and not self._is_whole(place)}
            if not many:
                if len(found.read) + len(found.write) <= MOST or least == 1:
                    break
                least -= 1
                continue
            for place, ones in many.items():
                found.read[place] = f"{len(ones)} of its files and directories are used"
        found.exists = {
            one: why
            for one, why in _innermost(found.exists).items()
            if not any(lies_beneath(one, other) or lies_beneath(other, one) for other in (*found.read, *found.write))
        }

    def _hide(self) -> None:
        granted = (*self._found.read, *self._found.write, *self._granted)
        for path in list(self._found.withheld):
            if is_secret(path, self._home) and self._is_within(path, granted):
                self._found.hide[path] = "looks like a secret: take it out of hide to show it"
        for name in IN_HOME if self._home else ():
            path = f"{self._home}/{name}"
            if self._host.kind(path) != "none" and self._is_within(path, granted):
                self._found.hide[path] = "looks like a secret: take it out of hide to show it"

    def _is_within(self, path: str, granted: Iterable[str]) -> bool:
        """Beneath one of them, and not granted by its own name: then somebody meant it."""
        return path not in self._granted and any(lies_beneath(path, one) for one in granted)


def _outermost(paths: Mapping[str, str]) -> dict[str, str]:
    kept: dict[str, str] = {}
    for path in sorted(paths, key=lambda one: (one.count("/"), one)):
        if not any(lies_beneath(path, one) for one in kept):
            kept[path] = paths[path]
    return kept


def _innermost(paths: Mapping[str, str]) -> dict[str, str]:
    """Of directories that are only there: the innermost, which those above exist for."""
    return {
        one: why for one, why in paths.items() if not any(other != one and lies_beneath(other, one) for other in paths)
    }
