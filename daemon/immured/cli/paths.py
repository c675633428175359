"""Host paths as a person types them: relative to where they stand, with a place inside if they want another one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from immured.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Bound", "inside", "parse_bound", "prepare_writable", "wire_text"]


@dataclass(frozen=True)
class Bound:
    """A host path and where it is seen inside. Both absolute."""

    source: str
    target: str

    def as_manifest(self) -> object:
        """The entry of `filesystem.read` or `.write`."""
        if self.source == self.target:
            return wire_text(self.source)
        return {"path": wire_text(self.source), "target": wire_text(self.target)}


def wire_text(text: str) -> str | bytes:
    """Text as it travels: bytes where a name on disk is not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return os.fsencode(text)
    return text


def parse_bound(text: str, cwd: Path) -> Bound:
    """`P` or `P:T`. P may be relative to `cwd`; T is absolute, and P's own absolute path where it is left out.

    A colon only separates where a slash follows it, so `a:b` is one path. Raises ConfigurationError `bad_path`.
    """
    head, separator, tail = text.rpartition(":/")
    source, target = (head, "/" + tail) if separator else (text, "")
    if not source:
        raise ConfigurationError("bad_path", f"{text!r} names no host path", "write --ro PATH or --ro PATH:/INSIDE")
    # Not resolved: the daemon opens it as the caller, links and all, and the name is what the caller expects inside.
    absolute = os.path.normpath(cwd / source)
    return Bound(absolute, os.path.normpath(target) if target else absolute)


def prepare_writable(bound: Bound) -> bool:
    """Make the directory of a `--rw` that does not exist yet, as the caller. Returns whether it did.

    Only the last part of a path is made. Raises ConfigurationError `path_missing`, `root_owned`.
    """
    if os.geteuid() == 0 and not Path(bound.source).exists():
        raise ConfigurationError(
            "root_owned", f"{bound.source} does not exist, and no run may write what root makes",
            "act for a user (--as USER), whose directory it then is",
        )  # fmt: skip
    try:
        Path(bound.source).mkdir()
    except FileExistsError:
        return False
    except OSError as failed:
        if Path(bound.source).exists():
            return False
        raise ConfigurationError(
            "path_missing", f"{bound.source} does not exist and cannot be made: {failed.strerror}",
            "make the directory first, or name another",
        ) from failed  # fmt: skip
    return True


def inside(cwd: Path, bounds: Iterable[Bound]) -> str | None:
    """Where `cwd` is inside the sandbox, if one of the bound paths holds it; the deepest of them decides."""
    best: Bound | None = None
    for bound in bounds:
        source = Path(os.path.realpath(bound.source))
        if cwd.is_relative_to(source) and (best is None or len(source.parts) > len(Path(best.source).parts)):
            best = Bound(str(source), bound.target)
    return None if best is None else os.path.normpath(Path(best.target) / cwd.relative_to(best.source))
