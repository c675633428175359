"""Files that the caller names, read whole up to a bound. Imports next to nothing: what reads them is called often."""

from __future__ import annotations

from typing import TYPE_CHECKING

from immured.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_file"]


def read_file(path: Path, most: int, code: str, remedy: str) -> bytes:
    """The file's bytes, at most `most`. Raises ConfigurationError `code`, with `remedy` where it cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as failed:
        raise ConfigurationError(code, f"{path}: {failed.strerror}", remedy) from failed
    if len(content) > most:
        raise ConfigurationError(code, f"{path} is larger than {most} bytes", "shorten it")
    return content
