"""CPython's own tests as programs: how they are run, and what is known to be refused to them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

__all__ = ["RUNNER", "Listed", "Verdict", "command", "covers", "listed", "verdicts"]

RUNNER: Final = Path(__file__).with_name("unittest_verdicts.py")

Verdict = Literal["passed", "failed", "skipped"]


def command(runner: str, module: str, results: str, only: Iterable[str] = ()) -> list[str]:
    """How one module is run by RUNNER, where that stands at `runner`; `only`: these tests of it, by name."""
    return ["/usr/bin/python3", runner, module, results, *sorted(only)]


def verdicts(results: bytes) -> dict[str, Verdict]:
    """Name to verdict, as RUNNER wrote it."""
    found: dict[str, Verdict] = json.loads(results)
    return found


@dataclass(frozen=True, slots=True)
class Listed:
    """What refused.toml says for one host: patterns of tests that fail, and of tests that skip themselves."""

    refused: tuple[str, ...]
    skip: tuple[str, ...]

    def of(self, module: str) -> Listed:
        """The part that is about one module."""
        start = f"test.{module}."
        return Listed(
            tuple(one for one in self.refused if one.startswith(start)),
            tuple(one for one in self.skip if one.startswith(start)),
        )


def listed(path: Path, controllers: Iterable[str]) -> Listed:
    """`path` read for a host whose cgroup v2 has these controllers."""
    have = set(controllers)
    text = tomllib.loads(path.read_text())
    unknown = text.keys() - {"refused", "skip"}
    assert not unknown, f"{path.name} has tables that mean nothing: {unknown}"
    return Listed(tuple(_patterns(text["refused"], have)), tuple(_patterns(text["skip"], have)))


def _patterns(entries: Iterable[Mapping[str, object]], have: set[str]) -> Iterable[str]:
    for entry in entries:
        assert entry.keys() <= {"reason", "tests", "lacking"}, entry
        assert str(entry["reason"]).strip(), "every entry gives its reason"
        if entry.get("lacking") not in have:
            names = entry["tests"]
            assert isinstance(names, list)
            yield from names


def covers(patterns: Iterable[str], name: str) -> bool:
    """Whether one of `patterns` is this test or, ending in `.*`, its class."""
    return any(name == one or (one.endswith(".*") and name.startswith(one[:-1])) for one in patterns)
