"""What the broker and the clerk for snapshots say to each other (native/launcher/clerk_snapshot_words.h)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from immured.isolation import abi

__all__ = ["SavedPlace", "SnapshotAnswer", "ask_packet", "read_answer"]

_ASK: Final = struct.Struct("=QQ")
_ANSWER: Final = struct.Struct("=iIQ")
_PLACE: Final = struct.Struct("=QQII")

if (_ASK.size, _ANSWER.size, _PLACE.size) != tuple(
    map(abi.size_of, ("imd_snapshot_ask", "imd_snapshot_answer", "imd_snapshot_place"))
):  # pragma: no cover
    raise ImportError("immured._abi is not of this source: run `make build`")


@dataclass(frozen=True, slots=True)
class SavedPlace:
    """One place that was saved: how many bytes its files hold, and how many entries it has."""

    target: bytes
    layer: bool
    bytes: int
    files: int


@dataclass(frozen=True, slots=True)
class SnapshotAnswer:
    """`error` is an errno, and `text` says of what; 0: all was saved, and `skipped` sockets were not."""

    error: int
    text: str = ""
    places: tuple[SavedPlace, ...] = ()
    skipped: int = 0


def ask_packet(directory: str, max_bytes: int, max_files: int) -> bytes:
    """Save everything into `directory` ("TENANT/NAME" of the snapshots)."""
    return _ASK.pack(max_bytes, max_files) + directory.encode()


def read_answer(data: bytes) -> SnapshotAnswer:
    """What the clerk says. Raises ValueError for what is no answer."""
    try:
        error, count, skipped = _ANSWER.unpack_from(data)
        offset = _ANSWER.size
        if error:
            return SnapshotAnswer(error, data[offset:].decode("utf-8", "replace"))
        places = []
        for _ in range(count):
            size, files, layer, length = _PLACE.unpack_from(data, offset)
            offset += _PLACE.size
            target = data[offset : offset + length]
            if len(target) != length:
                raise ValueError("a target that ends within")
            places.append(SavedPlace(target, bool(layer), size, files))
            offset += length
    except struct.error as wrong:
        raise ValueError(f"no answer of a clerk for snapshots: {wrong}") from None
    return SnapshotAnswer(0, "", tuple(places), skipped)
