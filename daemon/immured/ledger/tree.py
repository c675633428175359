"""The RFC 6962 Merkle tree over the entries' leaf hashes, kept as its frontier: O(log n) hashes, no leaves."""

from __future__ import annotations

import hashlib
from typing import Final

from immured._ledger_write import Frontier

__all__ = ["EMPTY_ROOT", "Frontier", "node_hash"]

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
"""The root of a tree without leaves."""


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right), 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()
