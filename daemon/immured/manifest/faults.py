"""All that the validator refuses in a manifest's file, each with its line. Pure.

The validator stops at the first fault. What it names is taken out of a copy, and it is asked again.
"""

from __future__ import annotations

import re
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final

from immured.errors import Refused
from immured.manifest.builtin import class_manifest
from immured.manifest.finding import Finding, Level
from immured.manifest.lines import Path, lines_of
from immured.manifest.read import MAX_TEXT, read_map, read_toml
from immured.wire.strict_toml import parse_toml

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["faults_of", "line_of"]

_MOST: Final = 64
_KIND: Final = "invalid"
_LINE: Final = re.compile(r"\bline ([0-9]+)")


def faults_of(raw: bytes) -> list[Finding]:
    """Every fault, by line; none: `read_toml` takes the file."""
    try:
        read_toml(raw, class_manifest)
    except Refused as refused:
        first = refused
    else:
        return []
    found = None if "field" in first.details else _LINE.search(first.message)
    if found is not None:  # of the text as a whole
        return [_finding(first, int(found[1]))]
    try:
        values = parse_toml(raw) if len(raw) <= MAX_TEXT else None
    except ValueError:
        values = None
    if values is None:
        return [_finding(first, 0)]
    return sorted(_all(first, values, lines_of(raw.decode())), key=lambda one: one.line)


def line_of(lines: Mapping[Path, int], path: Path) -> int:
    """The line of what stands at that path, or of the innermost thing around it that is there; 0: of nothing."""
    return next((lines[path[:length]] for length in range(len(path), 0, -1) if path[:length] in lines), 0)


def _all(first: Refused, values: dict[str, Any], lines: Mapping[Path, int]) -> list[Finding]:
    rest, taken, found = deepcopy(values), _Taken(), list[Finding]()
    if "name" not in rest:  # a file has one, and a map need not
        found.append(_finding(first, 0))
    while len(found) < _MOST:
        try:
            read_map(rest, "", class_manifest)
        except Refused as refused:
            path = _path(rest, refused)
            found.append(_finding(refused, line_of(lines, taken.as_written(path))))
            # What names are declared, and what all is read by, decides whether the rest is right.
            if not path or path[0] in ("parameters", "schema", "class") or not _take_out(rest, path, taken):
                break
        else:
            break
    return found


def _finding(refused: Refused, line: int) -> Finding:
    field = str(refused.details.get("field", "")).removeprefix("manifest.")
    return Finding(line, Level.ERROR, _KIND, refused.message, refused.remedy, field)


class _Taken:
    """Which entries of arrays were taken out, so that those behind them keep their numbers."""

    def __init__(self) -> None:
        self._out: dict[Path, list[int]] = {}

    def as_written(self, path: Path) -> Path:
        """A path in the rest, as it is in the file."""
        whole: Path = ()
        for part in path:
            place = part
            if isinstance(place, int):
                for out in sorted(self._out.get(whole, ())):
                    place += out <= place
            whole = (*whole, place)
        return whole

    def note(self, path: Path) -> None:
        """This one is taken out; `path` is one in the rest, before that."""
        *above, last = self.as_written(path)
        if isinstance(last, int):
            self._out.setdefault(tuple(above), []).append(last)


def _path(values: object, refused: Refused) -> Path:
    """Where the fault is, as far as that is there."""
    details = refused.details
    where, index = str(details.get("field", "")), details.get("index")
    if "where" in details:  # an unknown name
        where = f"{details['where']}.{where}"
    path: Path = ()
    for name in where.split(".")[1:]:
        if isinstance(values, list) and isinstance(index, int) and index < len(values):
            path, values, index = (*path, index), values[index], None
        if not isinstance(values, dict) or name not in values:
            break
        path, values = (*path, name), values[name]
    if isinstance(values, list) and isinstance(index, int) and index < len(values):
        path = (*path, index)
    return path


def _take_out(values: Any, path: Path, taken: _Taken) -> bool:
    """Whether there was something to take out."""
    for part in path[:-1]:
        values = values[part]
    if not path:
        return False
    taken.note(path)
    del values[path[-1]]
    return True
