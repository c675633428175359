"""What the next start would make of a ledger's files, without touching them: recovery itself, over storage that only
reads, and writes down what it would have written."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from immured.errors import ConfigurationError
from immured.ledger.note_keys import VerifierKey
from immured.ledger.recovery import QUARANTINE, recover
from immured.ledger.segments import Files, Part
from immured.ledger.storage import LogFile, PosixStorage, Storage

__all__ = ["Aside", "Foresight", "foresee"]

_LOCK = "lock"


@dataclass(frozen=True, slots=True)
class Aside:
    """Bytes at the end that recovery would move to `quarantine/`: an unfinished write, that nobody was told of."""

    file: str
    offset: int
    """In that file."""
    length: int
    sha256: str
    seq: int
    """The entry that they would have begun at."""


@dataclass(frozen=True, slots=True)
class Foresight:
    """`entries` are good, `signed` of them under the newest checkpoint; `aside`, what would be set aside; `unrecorded`,
    files in the quarantine that the next start enters; `refusal`: why it would refuse, and change nothing."""

    entries: int = 0
    signed: int = 0
    aside: Aside | None = None
    unrecorded: tuple[str, ...] = ()
    refusal: ConfigurationError | None = None


@dataclass(slots=True)
class _Log:
    """`LogFile`, as far as recovery needs one."""

    files: Files
    cut: int | None = None

    def parts(self) -> Sequence[Part]:
        return self.files.parts

    def size(self) -> int:
        return self.files.size()

    def read(self, offset: int, length: int) -> bytes:
        return self.files.read(offset, length)

    def truncate(self, size: int) -> None:
        self.cut = size

    def sync(self) -> None:
        """Nothing was written."""

    def drop_cache(self) -> None:
        """What the disk says is asked by the start itself."""


@dataclass(slots=True)
class _Storage:
    """`Storage`, likewise."""

    real: PosixStorage
    written: dict[str, bytes] = field(default_factory=dict)

    def where(self) -> str:
        return self.real.where()

    def names(self, folder: str) -> Sequence[str]:
        return self.real.names(folder)

    def read_whole(self, name: str) -> bytes:
        return self.written[name] if name in self.written else self.real.read_whole(name)

    def write_whole(self, name: str, data: bytes) -> None:
        self.written[name] = data


def foresee(directory: Path, keys: Iterable[VerifierKey], now_ns: int) -> Foresight:
    """Look at a ledger's directory that nobody has open. All lines are read. Raises ConfigurationError `ledger_in_use`,
    OSError."""
    _nobody_has(directory)
    storage = _Storage(PosixStorage(directory))
    with Files.open(directory) as files:
        log = _Log(files)
        try:
            found = recover(cast("Storage", storage), cast("LogFile", log), keys, now_ns)
        except ConfigurationError as error:
            return Foresight(refusal=error)
        aside = None
        if log.cut is not None:
            name, offset = files.locate(log.cut)
            [torn] = [data for name, data in storage.written.items() if name.startswith(f"{QUARANTINE}/")]
            aside = Aside(name, offset, len(torn), hashlib.sha256(torn).hexdigest(), found.chain.size)
        return Foresight(found.chain.size, found.signed, aside, tuple(one.file for one in found.unrecorded))


def _nobody_has(directory: Path) -> None:
    try:
        descriptor = os.open(directory / _LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigurationError(
            "ledger_in_use",
            f"another process has the ledger in {directory} open",
            "its daemon runs: stop it, or look with `immure ledger verify`",
        ) from None
    finally:
        os.close(descriptor)
