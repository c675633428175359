"""What a copy is told of the ledger, and what it answers. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from immured.errors import ImmuredError

__all__ = ["Copied", "ExportError", "Head", "differs", "folder_of", "no_source"]

_ORIGIN: Final = re.compile(r"immured/([0-9a-f]{32})")


class ExportError(ImmuredError):
    """A copy could not be brought up to date. Codes: docs/ledger.md, Exports."""


@dataclass(frozen=True, slots=True)
class Head:
    """How far a ledger is signed: a checkpoint's size in entries, and where the last of them ends in the stream."""

    size: int
    end: int


@dataclass(frozen=True, slots=True)
class Copied:
    """What a destination holds by now. `began`: there was nothing before."""

    entries: int
    bytes: int
    began: bool


def folder_of(origin: str) -> str:
    """Where a ledger's copy lies in a place that holds many: its origin, but for what all have. Raises ValueError."""
    found = _ORIGIN.fullmatch(origin)
    if found is None:
        raise ValueError(f"{origin!r} is no ledger's origin")
    return found[1]


def differs(message: str) -> ExportError:
    """What to say of a copy that is not what the ledger says."""
    return ExportError(
        "export_differs",
        f"the copy is not what the ledger says: {message}",
        "it is left as it is: compare the two (immure ledger compare), find out who changed it, and move it away",
    )


def no_source(reason: str) -> ExportError:
    """What to say when it is the ledger itself that cannot be read."""
    return ExportError("export_source", f"the ledger itself cannot be read: {reason}", "immure ledger verify")
