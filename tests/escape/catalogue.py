"""The ideas, as their files tell of them. A file's docstring is its record:

Title.

How it would get out, in a few lines.

Wall: what contains it, in words of docs/isolation.md
Meets: the errnos, or words of its own, that it may meet inside; nothing else counts as contained
Ends: causes (or SIGSYS) by which the run may end instead
Manifest: {"limits": ...}      what its sandbox has, JSON (default: nothing beside the default)
Scene: a name of scenes.py     what stands around it
Control: where the same program gets what it wants:
    no filter                  a cell of ours without the system call filter
    fence [without A, B]       a plain sandbox that lacks these walls (fence.py)
    manifest {...}             the same sandbox, but for this
    scene                      the same, but for what stands around it
Needs: what a kernel may lack; there, the control shows that it is lacking for root too
Open: why nothing contains it, and what to do about that: such an idea gets what it wants in a sandbox too. It may
      begin with `Landlock below ABI N:`, where a newer one contains it
Machine: x86_64                where it is of one machine alone
Reference: CVE, paper or manual page
"""

from __future__ import annotations

import ast
import json
import os
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from immured.host.syscalls import landlock_abi

HERE: Final = Path(__file__).parent
FIELDS: Final = ("Wall", "Meets", "Ends", "Manifest", "Scene", "Control", "Needs", "Open", "Machine", "Reference")
REQUIRED: Final = ("Wall", "Control", "Reference")

__all__ = ["IDEAS", "Idea"]


@dataclass(frozen=True)
class Idea:
    """One file. `name` is `technique/idea`."""

    name: str
    path: Path
    title: str
    fields: dict[str, str] = field(hash=False)

    @property
    def technique(self) -> str:
        return self.name.split("/")[0]

    @property
    def wall(self) -> str:
        return self.fields["Wall"]

    @property
    def scene(self) -> str:
        return self.fields.get("Scene", "nothing")

    @property
    def control(self) -> str:
        return self.fields["Control"]

    @property
    def meets(self) -> frozenset[str]:
        return frozenset(self.fields.get("Meets", "").replace(",", " ").split())

    @property
    def ends(self) -> frozenset[str]:
        return frozenset(self.fields.get("Ends", "").replace(",", " ").split())

    @property
    def needs(self) -> str:
        return self.fields.get("Needs", "")

    @property
    def open(self) -> str:
        return self.fields.get("Open", "")

    @property
    def open_here(self) -> bool:
        """Whether it is on this kernel."""
        since = re.match(r"Landlock below ABI (\d+):", self.open)
        return landlock_abi() < int(since[1]) if since else bool(self.open)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.fields.get("Manifest", "{}"))
        return parsed

    def without(self) -> list[str]:
        """The walls that its fence lacks."""
        _, _, walls = self.control.partition("without")
        return [wall.strip() for wall in walls.split(",") if wall.strip()]

    def loosened(self) -> dict[str, Any]:
        """The control's manifest."""
        parsed: dict[str, Any] = json.loads(self.control.removeprefix("manifest"))
        return parsed


def load(path: Path) -> Idea:
    """Raises ValueError where a file does not say what it has to."""
    name = str(path.relative_to(HERE).with_suffix(""))
    text = ast.get_docstring(ast.parse(path.read_text()))
    if not text:
        raise ValueError(f"{name} does not tell of itself")
    found = re.split(rf"^({'|'.join(FIELDS)}): ", text, flags=re.MULTILINE)
    fields = {key: " ".join(value.split()) for key, value in zip(found[1::2], found[2::2], strict=True)}
    if missing := [key for key in REQUIRED if key not in fields]:
        raise ValueError(f"{name} lacks {', '.join(missing)}")
    return Idea(name, path, text.splitlines()[0].rstrip("."), fields)


def _here(idea: Idea) -> bool:
    return idea.fields.get("Machine", os.uname().machine) == os.uname().machine


ALL: Final = tuple(load(path) for path in sorted(HERE.glob("*/*.py")))
IDEAS: Final = tuple(idea for idea in ALL if _here(idea))
