"""Which copier a place takes: by where it is, and by the form that the copy has there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from immured.ledger.exports.copy import Copy
from immured.ledger.exports.directory import Directory
from immured.ledger.exports.place import TILES, Place
from immured.ledger.exports.tiles import TileCopy

if TYPE_CHECKING:
    from immured.ledger.exports.ports import Source
    from immured.ledger.exports.s3 import S3

__all__ = ["copier"]


def copier(
    place: Place, folder: str, source: Source, s3: S3 | None, progress: Callable[[], None] = lambda: None
) -> Copy | TileCopy:
    """`s3` where it is no directory."""
    if s3 is None:
        there = Directory(place.directory or Path(place.to), folder)
        return TileCopy(source, there, progress) if place.format == TILES else Copy(source, there, progress)
    from immured.ledger.exports.pieces import Objects, Pieces

    if place.format == TILES:
        return TileCopy(source, Objects(s3, folder), progress)
    return Copy(source, Pieces(s3, folder), progress)
