"""The RFC 6962 Merkle tree over the entries' leaf hashes, kept as its frontier: O(log n) hashes, no leaves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

__all__ = ["EMPTY_ROOT", "Frontier", "node_hash"]

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
"""The root of a tree without leaves."""


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right), 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """The roots of the perfect subtrees that `size` splits into, largest first: one for each bit set in `size`."""

    __slots__ = ("_roots", "size")

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        self.size = 0
        self._roots: list[bytes] = []
        for leaf in leaves:
            self.append(leaf)

    def append(self, leaf: bytes) -> None:
        """Add the next leaf hash (32 bytes)."""
        roots, carry = self._roots, self.size
        while carry & 1:
            leaf = node_hash(roots.pop(), leaf)
            carry >>= 1
        roots.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """The tree's head at the present size, 32 bytes."""
        if not self._roots:
            return EMPTY_ROOT
        *rest, root = self._roots
        for left in reversed(rest):
            root = node_hash(left, root)
        return root

    def copy(self) -> Frontier:
        """An independent frontier of the same tree."""
        other = Frontier()
        other.size, other._roots = self.size, self._roots.copy()
        return other
