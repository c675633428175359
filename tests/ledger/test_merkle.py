"""Proofs are those of RFC 6962, 2.1.1 and 2.1.2; no other proof is taken."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immured.ledger.merkle import (
    consistency_path,
    frontier,
    inclusion_path,
    is_consistent,
    is_included,
    root_of,
)
from immured.ledger.tree import EMPTY_ROOT, Frontier

LEAVES = [hashlib.sha256(b"\x00" + n.to_bytes(2, "big")).digest() for n in range(70)]


def parent(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def head(leaves: list[bytes]) -> bytes:
    """MTH, as it is defined."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return parent(head(leaves[:k]), head(leaves[k:]))


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    """PATH, as it is defined."""
    if len(leaves) == 1:
        return []
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    if m < k:
        return [*path(m, leaves[:k]), head(leaves[k:])]
    return [*path(m - k, leaves[k:]), head(leaves[:k])]


def subproof(m: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    """SUBPROOF, as it is defined."""
    if m == len(leaves):
        return [] if whole else [head(leaves)]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    if m <= k:
        return [*subproof(m, leaves[:k], whole), head(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), head(leaves[:k])]


def node(level: int, index: int) -> bytes:
    part = LEAVES[index << level : (index + 1) << level]
    assert len(part) == 1 << level, "only perfect subtrees are stored"
    return head(part)


@pytest.mark.parametrize("size", range(71))
def test_roots(size: int) -> None:
    assert root_of(node, size) == head(LEAVES[:size]) == Frontier(LEAVES[:size]).root()


@pytest.mark.parametrize("size", range(71))
def test_a_frontier_is_a_subtree_for_each_bit(size: int) -> None:
    assert [node(*one) for one in frontier(size)] == [*Frontier(LEAVES[:size]).roots()]


@pytest.mark.parametrize("size", range(1, 71))
def test_inclusion_of_every_leaf(size: int) -> None:
    root = head(LEAVES[:size])
    for index in range(size):
        proof = inclusion_path(node, index, size)
        assert proof == path(index, LEAVES[:size])
        assert is_included(LEAVES[index], index, size, proof, root)


@pytest.mark.parametrize("new", range(71))
def test_consistency_from_every_size(new: int) -> None:
    for old in range(new + 1):
        proof = consistency_path(node, old, new)
        if old:
            assert proof == subproof(old, LEAVES[:new], True)
        assert is_consistent(old, head(LEAVES[:old]), new, head(LEAVES[:new]), proof)


def test_what_is_not_there_has_no_proof() -> None:
    for index, size in ((-1, 3), (3, 3), (0, 0)):
        with pytest.raises(ValueError, match="has no leaf"):
            inclusion_path(node, index, size)
    for old, new in ((-1, 3), (4, 3)):
        with pytest.raises(ValueError, match="does not begin"):
            consistency_path(node, old, new)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 13])
def test_an_inclusion_proof_is_good_for_its_leaf_alone(size: int) -> None:
    root = head(LEAVES[:size])
    for index in range(size):
        proof = inclusion_path(node, index, size)
        for other in range(-1, size + 2):
            if other != index:
                assert not is_included(LEAVES[index], other, size, proof, root)
        assert not is_included(LEAVES[size], index, size, proof, root)
        assert not is_included(LEAVES[index], index, size, [*proof, root], root)
        assert not is_included(LEAVES[index], index, size, [*proof, LEAVES[0]], root)
        if proof:
            assert not is_included(LEAVES[index], index, size, proof[:-1], root)
            assert not is_included(LEAVES[index], index, size, proof[1:], root)


@pytest.mark.parametrize(("old", "new"), [(1, 2), (1, 5), (3, 7), (4, 7), (4, 8), (6, 13), (8, 13), (13, 13)])
def test_a_consistency_proof_is_good_for_its_roots_alone(old: int, new: int) -> None:
    before, after = head(LEAVES[:old]), head(LEAVES[:new])
    proof = consistency_path(node, old, new)
    other = head(LEAVES[1 : old + 1])
    assert not is_consistent(old, other, new, after, proof)
    assert not is_consistent(old, before, new, other, proof)
    assert not is_consistent(old, before, new, after, [*proof, after])
    assert not is_consistent(new + 1, before, new, after, proof)
    if proof:
        assert not is_consistent(old, before, new, after, proof[:-1])
        assert not is_consistent(old, before, new, after, proof[1:])
    for size in range(1, new):
        if size != old:
            assert not is_consistent(size, before, new, after, proof) or head(LEAVES[:size]) == before


def test_every_tree_begins_with_the_empty_one() -> None:
    root = head(LEAVES[:5])
    assert is_consistent(0, EMPTY_ROOT, 5, root, [])
    assert not is_consistent(0, root, 5, root, [])
    assert not is_consistent(0, EMPTY_ROOT, 5, root, [root])
    assert not is_consistent(1, LEAVES[0], 5, root, [])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_flipped_bit_of_a_proof_passes(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 70))
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_path(node, index, size)
    at, bit = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(0, 255))
    flipped = bytearray(proof[at])
    flipped[bit >> 3] ^= 1 << (bit & 7)
    proof[at] = bytes(flipped)
    assert not is_included(LEAVES[index], index, size, proof, head(LEAVES[:size]))
    old = data.draw(st.integers(1, size - 1))
    proof = consistency_path(node, old, size)
    at = data.draw(st.integers(0, len(proof) - 1))
    flipped = bytearray(proof[at])
    flipped[bit >> 3] ^= 1 << (bit & 7)
    proof[at] = bytes(flipped)
    assert not is_consistent(old, head(LEAVES[:old]), size, head(LEAVES[:size]), proof)
