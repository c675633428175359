"""On which line of a TOML text each of its names and entries stands. Pure.

tomllib, which has read the text already, does not say. So nothing is checked here: strings, brackets and comments are
told apart, and that is all.
"""

from __future__ import annotations

import contextlib
import re
import tomllib
from typing import Final

__all__ = ["Path", "lines_of"]

Path = tuple[str | int, ...]
"""Names, and numbers of entries in arrays: `("filesystem", "read", 1, "path")`."""

_SPACE: Final = re.compile(r"[ \t]*", re.ASCII)
_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*", re.ASCII)
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_STRING: Final = re.compile(
    r"""\"{3}(?:[^\\]|\\.)*?\"{3,5}|'{3}.*?'{3,5}|\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'""", re.DOTALL
)
_SCALAR: Final = re.compile(r"[^,\]}#\n]*")


def lines_of(text: str) -> dict[Path, int]:
    """The line, from 1, of everything in a text that tomllib has taken; what is nested too deeply is left out."""
    finder = _Finder(text)
    with contextlib.suppress(RecursionError):
        finder.document()
    return finder.found


class _Finder:
    def __init__(self, text: str) -> None:
        self.found: dict[Path, int] = {}
        self._text = text.replace("\r\n", "\n")
        self._at = 0
        self._counted = (0, 1)  # a place, and its line
        self._tables: dict[Path, int] = {}  # [[tables]] so far

    def document(self) -> None:
        above: Path = ()
        while not self._blank_to_end():
            line, began = self._line(), self._at
            if self._take("[["):
                above = self._table(self._key("]]"))
                number = self._tables[above] = self._tables.get(above, -1) + 1
                above = (*above, number)
                self._note(above, line)
            elif self._take("["):
                above = self._table(self._key("]"))
                self._note(above, line)
            else:
                self._pair(above)
            if self._at == began:  # no TOML after all
                return

    def _table(self, names: list[str]) -> Path:
        """The path that a header names: of a list of tables it is the last one."""
        path: Path = ()
        for name in names:
            if path in self._tables:
                path = (*path, self._tables[path])
            path = (*path, name)
        return path

    def _pair(self, above: Path) -> None:
        line = self._line()
        path = (*above, *self._key("="))
        self._note(path, line, len(above))
        self._value(path)

    def _key(self, end: str) -> list[str]:
        """A dotted key, and what follows it."""
        names = []
        while True:
            self._match(_SPACE)
            quoted = self._text[self._at : self._at + 1] in ("'", '"')
            name = self._match(_STRING if quoted else _BARE_KEY)
            names.append(next(iter(tomllib.loads(f"{name} = 0"))) if quoted else name)
            self._match(_SPACE)
            if not self._take("."):
                self._take(end)
                return names

    def _value(self, path: Path) -> None:
        self._match(_SPACE)
        if self._take("["):
            number = 0
            while self._more("]"):
                self._note((*path, number), self._line())
                self._value((*path, number))
                number += 1
        elif self._take("{"):
            while self._more("}"):
                self._pair(path)
        elif not self._match(_STRING):
            self._match(_SCALAR)

    def _more(self, end: str) -> bool:
        """Whether an entry follows, rather than the end of what it would stand in."""
        self._match(_BLANK)
        self._take(",")
        self._match(_BLANK)
        return not self._take(end) and self._at < len(self._text)

    def _note(self, path: Path, line: int, known: int = 0) -> None:
        """Where it stands, and the tables around it that are named here first."""
        for length in range(known + 1, len(path) + 1):
            self.found.setdefault(path[:length], line)

    def _blank_to_end(self) -> bool:
        self._match(_BLANK)
        return self._at >= len(self._text)

    def _line(self) -> int:
        place, line = self._counted
        line += self._text.count("\n", place, self._at)
        self._counted = (self._at, line)
        return line

    def _take(self, token: str) -> bool:
        if not self._text.startswith(token, self._at):
            return False
        self._at += len(token)
        return True

    def _match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            return ""
        self._at = found.end()
        return found[0]
