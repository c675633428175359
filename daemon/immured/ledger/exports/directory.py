"""A copy in a directory: a folder of the ledger's own, laid out as a ledger is that was never sealed."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from immured.ledger.entry import MAX_LINE
from immured.ledger.exports.files import forget, names_in, open_at, opened, read_at, write_at
from immured.ledger.exports.head import ExportError, differs
from immured.ledger.recovery import CHECKPOINTS, checkpoint_names
from immured.ledger.segments import LOG, begins_at

__all__ = ["Directory"]

_PROBE: Final = ".probe"
_PROBE_BYTES: Final = 65_536  # as much as the longest line, so that a destination without room for one is found
_MAX_SMALL: Final = 1 << 25  # a bundle of 256 of the longest lines


class Directory:
    """`Destination` in a directory: a folder of the ledger's own, laid out as the ledger's is.

    `directory` is the operator's, and may be a symlink; nothing below it is followed.
    """

    def __init__(self, directory: Path, folder: str) -> None:
        self._directory = directory
        self._folder = folder
        self._fd = -1
        self._begins: int | None = None
        self._owner: tuple[int, int] | None = None  # root makes what it makes here the folder's owner's

    def attach(self, *, begun: bool) -> None:
        with opened(os.fspath(self._directory), os.O_RDONLY | os.O_DIRECTORY, None, follow=True) as parent:
            # In a directory like /tmp nobody can take the place of a folder that is there.
            self._check_safe(os.fstat(parent), self._directory, sticky=True)
            try:
                self._fd = open_at(self._folder, os.O_RDONLY | os.O_DIRECTORY, parent)
            except FileNotFoundError:
                if begun:
                    raise self._missing() from None
                os.mkdir(self._folder, 0o700, dir_fd=parent)
                self._fd = open_at(self._folder, os.O_RDONLY | os.O_DIRECTORY, parent)
                above = os.fstat(parent)
                if os.geteuid() == 0 and not above.st_mode & stat.S_ISVTX:
                    os.fchown(self._fd, above.st_uid, above.st_gid)
                os.fsync(parent)
        try:
            facts = os.fstat(self._fd)
            self._check_safe(facts, self._directory / self._folder)
            self._owner = (facts.st_uid, facts.st_gid) if os.geteuid() == 0 and facts.st_uid != 0 else None
        except BaseException:
            self.detach()
            raise

    def detach(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def probe(self) -> None:
        data = os.urandom(_PROBE_BYTES)
        try:
            with opened(_PROBE, os.O_RDWR | os.O_CREAT | os.O_TRUNC, self._fd) as fd:
                write_at(fd, 0, data)
                os.fsync(fd)
                forget(fd)
                if read_at(fd, 0, len(data)) != data:
                    raise differs("what was written to try it reads otherwise")
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_PROBE, dir_fd=self._fd)

    @property
    def piece(self) -> int:
        return 1 << 20

    def held(self) -> tuple[int, int] | None:
        try:
            with opened(LOG, os.O_RDONLY, self._fd) as fd:
                # A copy that was begun when the oldest entries were retired says so in its first line.
                self._begins = begins_at(read_at(fd, 0, MAX_LINE + 1).partition(b"\n")[0])[1]
                return self._begins, self._begins + os.fstat(fd).st_size
        except FileNotFoundError:
            self._begins = None
            return None

    def append(self, offset: int, data: bytes) -> None:
        if self._begins is None:
            self._begins = offset
        with opened(LOG, os.O_RDWR | os.O_CREAT, self._fd) as fd:
            self._give(fd)
            write_at(fd, offset - self._begins, data)
            os.fsync(fd)
        if offset == self._begins:
            os.fsync(self._fd)

    def read(self, offset: int, length: int) -> bytes:
        with opened(LOG, os.O_RDONLY, self._fd) as fd:
            forget(fd)
            return read_at(fd, offset - (self._begins or 0), length)

    def checkpoints(self) -> Sequence[str]:
        return checkpoint_names(names_in(CHECKPOINTS, self._fd))

    def put(self, name: str, data: bytes) -> None:
        *folders, last = name.split("/")
        for depth in range(1, len(folders) + 1):
            with contextlib.suppress(FileExistsError):
                os.mkdir("/".join(folders[:depth]), 0o750, dir_fd=self._fd)
                with opened("/".join(folders[:depth]), os.O_RDONLY | os.O_DIRECTORY, self._fd) as made:
                    self._give(made)
                with opened("/".join(folders[: depth - 1]) or ".", os.O_RDONLY | os.O_DIRECTORY, self._fd) as above:
                    os.fsync(above)
        with opened("/".join(folders) or ".", os.O_RDONLY | os.O_DIRECTORY, self._fd) as parent:
            temporary = f".{last}.tmp"
            with opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, parent) as fd:
                self._give(fd)
                write_at(fd, 0, data)
                os.fsync(fd)
            os.rename(temporary, last, src_dir_fd=parent, dst_dir_fd=parent)
            os.fsync(parent)

    def get(self, name: str) -> bytes | None:
        try:
            with opened(name, os.O_RDONLY, self._fd) as fd:
                forget(fd)
                return read_at(fd, 0, _MAX_SMALL)
        except FileNotFoundError:
            return None

    def _give(self, fd: int) -> None:
        """What root makes in a folder of another's, who goes on with it, belongs to that one."""
        if self._owner is not None:
            os.fchown(fd, *self._owner)

    def _missing(self) -> ExportError:
        return ExportError(
            "export_missing",
            f"{self._directory} has no {self._folder} any more, where a copy of this ledger was begun",
            f"mount what was there; or, to begin another copy, make the folder: install -d -m 0700 -o USER "
            f"{self._directory}/{self._folder}, with the daemon's user",
        )

    def _check_safe(self, facts: os.stat_result, path: Path, *, sticky: bool = False) -> None:
        # A folder that others may write to is another's, who made it before us: his the sticky bit does not hold.
        if facts.st_mode & 0o022 and not (sticky and facts.st_mode & stat.S_ISVTX):
            raise ExportError(
                "export_insecure",
                f"{path} may be written by others, who could put another copy there",
                f"chmod go-w {path}",
            )
