"""The frontier gives the roots of RFC 6962, section 2.1."""

from __future__ import annotations

import hashlib

import pytest

from immured.ledger.tree import EMPTY_ROOT, Frontier

# The inputs and roots that implementations of Certificate Transparency test themselves with.
INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def leaf(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def by_definition(leaves: list[bytes]) -> bytes:
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + by_definition(leaves[:k]) + by_definition(leaves[k:])).digest()


@pytest.mark.parametrize("size", range(1, 9))
def test_known_roots(size: int) -> None:
    assert Frontier(leaf(bytes.fromhex(text)) for text in INPUTS[:size]).root().hex() == ROOTS[size - 1]


def test_every_size_up_to_300_is_as_the_definition_says() -> None:
    leaves = [leaf(bytes([n & 255, n >> 8])) for n in range(300)]
    tree = Frontier()
    for size, one in enumerate(leaves, 1):
        tree.append(one)
        assert tree.root() == by_definition(leaves[:size])


def test_a_tree_without_leaves() -> None:
    assert Frontier().root() == EMPTY_ROOT


def test_a_copy_grows_on_its_own() -> None:
    tree = Frontier([leaf(b"a")])
    other = tree.copy()
    other.append(leaf(b"b"))
    assert (tree.size, tree.root(), other.size) == (1, leaf(b"a"), 2)
