"""Acceptances of change sets that are not over: what a crash of the host, or a sandbox's end, leaves to be undone.

DIR/accepting/<16 hex digits>.json is on the disk before the first rename, and removed when the acceptance is over. It
holds the digest of the journal in the captured directory: who may write there, may write a journal too.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from immured.service.files import read_bounded, sync_directory, write_whole

__all__ = ["Accepting", "Begun"]

_STAGING: Final = re.compile(r"\.immured-([0-9a-f]{16})")
_MAX: Final = 64 << 10
_MOST: Final = 4096
"""Records that are looked through."""


@dataclass(frozen=True, slots=True)
class Begun:
    """One. `directory`: the caller's, as he named it, and its inode; `staging`: a name in it; `journal`: SHA-256."""

    directory: str
    inode: int
    uid: int
    staging: str
    journal: str
    sandbox: str


class Accepting:
    """The records beneath a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def begin(self, begun: Begun) -> None:
        """On the disk when it returns. Raises OSError, ValueError (no name of ours)."""
        write_whole(self._place(begun.staging), json.dumps(asdict(begun)).encode(), 0o600)
        sync_directory(self._directory)

    def over(self, staging: str) -> None:
        """It was applied, or undone. Raises OSError."""
        self._place(staging).unlink(missing_ok=True)

    def left(self, directory: str, uid: int) -> list[Begun]:
        """Those of a directory and its caller. What is no record is left where it is. Raises OSError."""
        found = []
        for _, path in zip(range(_MOST), sorted(self._directory.glob("*.json")), strict=False):
            try:
                begun = Begun(**json.loads(read_bounded(path, _MAX)))
            except (OSError, ValueError, TypeError):
                continue
            if (begun.directory, begun.uid) == (directory, uid) and _STAGING.fullmatch(begun.staging):
                found.append(begun)
        return found

    def _place(self, staging: str) -> Path:
        matched = _STAGING.fullmatch(staging)
        if matched is None:
            raise ValueError(f"{staging!r} is no staging directory")
        return self._directory / f"{matched[1]}.json"
