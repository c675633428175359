"""The files that come with the package. Not by importlib.resources: it brings zipfile, tempfile and shutil with it, for
packages in archives, which this one cannot be (its launcher is executed); a daemon would hold them for as long as it
lives."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["shipped"]

_PACKAGE: Final = Path(__file__).parent


def shipped(*names: str) -> Path:
    """Where one of them is, or a directory of them, by the names on the way there: `shipped("profiles", "seccomp")`."""
    return _PACKAGE.joinpath(*names)
