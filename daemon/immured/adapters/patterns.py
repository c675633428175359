"""Patterns of paths, as git writes them: `*` and `?` within a name, `**` over names, `[...]`. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from immured.adapters.draft import above, beneath

__all__ = ["is_pattern", "matching", "still"]


def is_pattern(path: str) -> bool:
    """Whether it has any of the signs."""
    return any(sign in path for sign in "*?[]")


def still(pattern: str) -> str:
    """The directory above the first sign: what has to be looked through."""
    first = min((pattern.find(sign) for sign in "*?[" if sign in pattern), default=len(pattern))
    return above(pattern[: first + 1]) if first < len(pattern) else above(pattern)


def matching(pattern: str, paths: Iterable[str]) -> Iterator[str]:
    """Which of the paths it means, none of them beneath another."""
    expression, found = re.compile(_expression(pattern), re.DOTALL), ""
    for path in sorted(paths):
        if expression.fullmatch(path) and not (found and beneath(path, found)):
            found = path
            yield path


def _expression(pattern: str) -> str:
    out, at = "", 0
    while at < len(pattern):
        if pattern.startswith("/**/", at):
            out, at = out + "/(?:.*/)?", at + 4
        elif pattern.startswith("**", at):
            out, at = out + ".*", at + 2
        elif pattern[at] == "*":
            out, at = out + "[^/]*", at + 1
        elif pattern[at] == "?":
            out, at = out + "[^/]", at + 1
        elif pattern[at] == "[" and (end := pattern.find("]", at + 2)) > 0:
            inner = pattern[at + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            out, at = out + "[" + ("^/" + inner[1:] if inner[:1] in "!^" else inner) + "]", end + 1
        else:
            out, at = out + re.escape(pattern[at]), at + 1
    return out
