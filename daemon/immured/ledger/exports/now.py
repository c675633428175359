"""A copy on demand: by whoever may read the ledger, of what is signed of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from immured.ledger.checkpoint import NoteError, unverified
from immured.ledger.entry import MAX_LINE, LineError
from immured.ledger.exports.copier import copier
from immured.ledger.exports.copy import VKEYS
from immured.ledger.exports.head import Copied, Head, folder_of, no_source
from immured.ledger.exports.seek import offset_of
from immured.ledger.exports.source import LedgerFiles
from immured.ledger.recovery import CHECKPOINTS

if TYPE_CHECKING:
    from immured.ledger.exports.place import Place

__all__ = ["Ledgered", "export_now", "signed_head"]

_REACH: Final = 2 * (MAX_LINE + 1)


@dataclass(frozen=True, slots=True)
class Ledgered:
    """Where a ledger's files are, and its keys."""

    ledger: Path
    vkeys: Path

    @classmethod
    def of_state(cls, state: Path) -> Ledgered:
        """Of a daemon's state directory."""
        return cls(state / "ledger", state / "keys" / VKEYS)

    @classmethod
    def of_copy(cls, directory: Path) -> Ledgered:
        """Of a copy, which has its keys beside it."""
        return cls(directory, directory / VKEYS)


def signed_head(source: LedgerFiles) -> tuple[str, Head]:
    """The ledger's origin and its newest signed head. Raises ExportError `export_source`, OSError."""
    names = source.names(CHECKPOINTS)
    if not names:
        raise no_source("it has no checkpoint")
    try:
        head = unverified(source.note(CHECKPOINTS, names[-1]))
        start, end = source.start(), _last_line_ends(source)
        return head.origin, Head(head.size, offset_of(source.read, start, end, head.size))
    except (NoteError, LineError, LookupError) as error:
        raise no_source(f"its newest checkpoint, {names[-1]}: {error}") from error


def _last_line_ends(source: LedgerFiles) -> int:
    size = source.size()
    tail = source.read(max(source.start(), size - _REACH), _REACH)
    return size - (len(tail) - 1 - tail.rfind(b"\n")) if b"\n" in tail else source.start()


def export_now(ledgered: Ledgered, place: Place) -> tuple[Copied, str]:
    """Bring the copy there up to date; what it holds then, and of which ledger. Raises ExportError, OSError,
    ConfigurationError."""
    vkeys = ledgered.vkeys.read_bytes()
    s3 = None
    if place.directory is None:
        from immured.ledger.exports.s3 import S3, session_of

        s3 = S3(place, session_of(place, owner=os.geteuid()))
    fd = os.open(ledgered.ledger, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    source = LedgerFiles(fd)
    try:
        origin, head = signed_head(source)
        return copier(place, folder_of(origin), source, s3).catch_up(head, vkeys, begun=False), origin
    finally:
        source.close()
        os.close(fd)
