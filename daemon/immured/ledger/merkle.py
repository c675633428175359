"""Proofs in the tree of RFC 6962, section 2.1: made of stored hashes, checked with none (RFC 9162, 2.1.3 and 2.1.4).

A node is named by level and index: (0, n) is leaf n, and (l, i) covers the leaves from i * 2**l, 2**l of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from immured.ledger.tree import EMPTY_ROOT, node_hash

__all__ = ["Node", "consistency_path", "frontier", "inclusion_path", "is_consistent", "is_included", "root_of"]

Node = Callable[[int, int], bytes]
"""The hash of the perfect subtree at a level and an index; all its leaves are there."""


def frontier(size: int) -> Iterator[tuple[int, int]]:
    """Level and index of the perfect subtrees that the first `size` leaves split into, largest first."""
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            yield level, (size >> level) - 1


def _range_root(node: Node, start: int, end: int) -> bytes:
    """The root of the leaves from `start` to `end`, as a tree of their own; `start` is a multiple of the largest power
    of two that is not above their number."""
    root: bytes | None = None
    for level, index in reversed([*frontier(end - start)]):
        one = node(level, index + (start >> level))
        root = one if root is None else node_hash(one, root)
    return EMPTY_ROOT if root is None else root


def root_of(node: Node, size: int) -> bytes:
    """The root of the first `size` leaves."""
    return _range_root(node, 0, size)


def _split(size: int) -> int:
    """The largest power of two below `size`, which is at least 2."""
    return 1 << (size - 1).bit_length() - 1


def inclusion_path(node: Node, index: int, size: int) -> list[bytes]:
    """PATH(index, D[size]): the sibling hashes from leaf `index` up. Raises ValueError where that leaf is not there."""
    if not 0 <= index < size:
        raise ValueError(f"the tree of size {size} has no leaf {index}")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_range_root(node, middle, end))
            end = middle
        else:
            path.append(_range_root(node, start, middle))
            start = middle
    path.reverse()
    return path


def consistency_path(node: Node, old: int, new: int) -> list[bytes]:
    """PROOF(old, D[new]): what shows that the tree of size `new` begins with that of size `old`. Empty where they are
    one, or `old` is 0. Raises ValueError where `new` is the smaller one."""
    if not 0 <= old <= new:
        raise ValueError(f"a tree of size {new} does not begin with one of size {old}")
    path: list[bytes] = []
    if old in (0, new):
        return path
    start, end = 0, new
    while old < end:
        middle = start + _split(end - start)
        if old <= middle:
            path.append(_range_root(node, middle, end))
            end = middle
        else:
            path.append(_range_root(node, start, middle))
            start = middle
    if start:  # else it is the old root itself, which whoever checks has
        path.append(_range_root(node, start, end))
    path.reverse()
    return path


def is_included(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether `path` shows that `leaf` is leaf `index` of the `size` under `root` (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    position, last, node = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if position & 1 or position == last:
            node = node_hash(sibling, node)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and node == root


def is_consistent(old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]) -> bool:
    """Whether `path` shows that the tree of size `new` begins with that of size `old` (RFC 9162, 2.1.4.2). From the
    empty tree, which every tree begins with, there is nothing to show."""
    if not 0 <= old <= new:
        return False
    if old == new:
        return not path and old_root == new_root
    if old == 0:
        return not path and old_root == EMPTY_ROOT
    nodes = list(path) if old & (old - 1) else [old_root, *path]
    if not nodes:
        return False
    position, last = old - 1, new - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old_node = new_node = nodes[0]
    for sibling in nodes[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            old_node, new_node = node_hash(sibling, old_node), node_hash(sibling, new_node)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new_node = node_hash(new_node, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and old_node == old_root and new_node == new_root
