"""What is wrong with a manifest's file, and what in it may not be meant: all of it, by line. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.manifest.advice import FOR_ALL, advise, advise_text
from immured.manifest.builtin import class_manifest
from immured.manifest.faults import faults_of, line_of
from immured.manifest.finding import Finding, Level
from immured.manifest.lines import Path, lines_of
from immured.manifest.read import read_toml
from immured.wire.strict_toml import parse_toml

if TYPE_CHECKING:
    from immured.manifest.difference import Calls
    from immured.manifest.schema import Syscalls

__all__ = ["Finding", "Level", "lint"]

_LEVELS: Final = (Level.ERROR, Level.WARNING, Level.NOTE)


def lint(
    raw: bytes, calls: Calls | None = None, check_syscalls: Callable[[Syscalls], object] | None = None
) -> list[Finding]:
    """Every finding, by line. `calls`: as for `difference`. `check_syscalls` raises Refused where no filter can be made
    of a manifest's [syscalls].
    """
    found, text = faults_of(raw), _text(raw)
    valid, lines = not found, dict[Path, int]()
    advice = list(advise_text(text))
    if valid:
        manifest, lines = read_toml(raw, class_manifest), lines_of(text)
        found += _checked(manifest.syscalls, lines, check_syscalls)
        # Of a list that comes from the class, the class is to blame.
        advice += [
            one for one in advise(manifest, parse_toml(raw), calls) if one[2] in FOR_ALL or _is_there(one[0], lines)
        ]
    for where, level, kind, message, remedy in advice:
        line = where if isinstance(where, int) else line_of(lines, where)
        field = "" if isinstance(where, int) else ".".join(part for part in where if isinstance(part, str))
        found.append(Finding(line, level, kind, message, remedy, field))
    return sorted(found, key=lambda one: (one.line, _LEVELS.index(one.level)))


def _text(raw: bytes) -> str:
    """Empty where it is none: then that is the fault."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return ""


def _is_there(where: Path | int, lines: Mapping[Path, int]) -> bool:
    return isinstance(where, int) or where in lines


def _checked(
    syscalls: Syscalls, lines: Mapping[Path, int], check: Callable[[Syscalls], object] | None
) -> list[Finding]:
    try:
        if check is not None:
            check(syscalls)
    except Refused as refused:
        named: list[Path] = [
            ("syscalls", name, index)
            for name in ("allow", "deny")
            for index, one in enumerate(getattr(syscalls, name))
            if one.lstrip("@") in refused.message
        ]
        line = line_of(lines, (*named, ("syscalls", "profile"))[0])
        return [Finding(line, Level.ERROR, "invalid", refused.message, refused.remedy, "syscalls")]
    return []
