"""On which line of a TOML text a table or one of its names stands. For messages: tomllib keeps no positions. Pure."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["line_of"]

_HEADER: Final = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?")
_NAME: Final = re.compile(r"\s*(\"[^\"]*\"|'[^']*'|[A-Za-z0-9_-]+)\s*[.=]")
_OPENS: Final = re.compile(r"\"\"\"|'''")


def line_of(text: str, table: str, index: int | None = None, name: str | None = None) -> int | None:
    """The line, from 1, of `name` in `[table]`, or in the `index`-th `[[table]]`; of its header without a name.

    `table` "" is what stands before the first header. None where it is written in another way (an inline table).
    """
    here, header, seen = table == "", 1 if table == "" else None, -1
    closing = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if closing:
            closing = "" if closing in line else closing
            continue
        if found := _HEADER.fullmatch(line):
            if here:
                return header
            if _plain(found[2]) == table:
                seen += found[1] == "[["
                here = index is None or (found[1] == "[[" and seen == index)
                header = number if here else None
            continue
        if here and name is None and header is not None and table:
            return header
        if here and name is not None and (key := _NAME.match(line)) and _plain(key[1]) == name:
            return number
        if (opens := _OPENS.search(line)) and opens[0] not in line[opens.end() :]:
            closing = opens[0]
    return header if here else None


def _plain(name: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in name.split("."))
