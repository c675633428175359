"""The ledger that is copied: its directory, held by a descriptor, as the way to it may be another's to pass."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Final

from immured.ledger.exports.files import names_in, opened, read_at
from immured.ledger.recovery import checkpoint_names
from immured.ledger.segments import Files

__all__ = ["LedgerFiles"]

_MAX_NOTE: Final = 1 << 20


class LedgerFiles:
    """`Source` over the ledger's directory. The descriptor stays the caller's."""

    def __init__(self, directory: int) -> None:
        self._directory = directory
        self._files: Files | None = None

    def start(self) -> int:
        files = self._reached()
        files.refresh()
        return files.start

    def read(self, offset: int, length: int) -> bytes:
        files = self._reached()
        try:
            data = files.read(offset, length)
        except FileNotFoundError:
            data = b""  # a segment that was retired since: the next look says so
        if len(data) < length and files.refresh():
            if offset < files.start:
                raise OSError(errno.ESTALE, f"it begins at byte {files.start} now; what was before that is retired")
            data = files.read(offset, length)
        return data

    def size(self) -> int:
        """Where the stream ends by now."""
        files = self._reached()
        files.refresh()
        return files.size()

    def names(self, folder: str) -> Sequence[str]:
        return checkpoint_names(names_in(folder, self._directory))

    def note(self, folder: str, name: str) -> bytes:
        with opened(f"{folder}/{name}", os.O_RDONLY, self._directory) as fd:
            return read_at(fd, 0, _MAX_NOTE)

    def close(self) -> None:
        """Give up what it opened."""
        if self._files is not None:
            self._files.close()
            self._files = None

    def _reached(self) -> Files:
        if self._files is None:
            self._files = Files.open(self._directory)
        return self._files
