"""One form of a command, whoever packs it."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from immured.errors import Refused
from immured.identity.canonical import canonical, command_bytes, command_digest
from immured.wire.strict_msgpack import unpack

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "proposals.json"
CASES: list[dict[str, Any]] = json.loads(VECTORS.read_text(encoding="utf-8"))["cases"]


def plain(value: Any) -> Any:
    """A value of the file: `{"bin": hex}` stands for bytes."""
    if isinstance(value, dict):
        return bytes.fromhex(value["bin"]) if set(value) == {"bin"} else {k: plain(v) for k, v in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_vectors(case: dict[str, Any]) -> None:
    command = command_bytes(case["cmd"], case["tenant"], case["project"], plain(case["args"]))
    assert command.hex() == case["packed"]
    digest = command_digest(case["cmd"], case["tenant"], case["project"], plain(case["args"]))
    assert digest.hex() == case["sha256"] == hashlib.sha256(command).hexdigest()


values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=40) | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


def shuffled(value: Any, order: random.Random) -> Any:
    if isinstance(value, dict):
        names = list(value)
        order.shuffle(names)
        return {name: shuffled(value[name], order) for name in names}
    return [shuffled(one, order) for one in value] if isinstance(value, list) else value


@given(st.dictionaries(st.text(max_size=8), values, max_size=4), st.randoms(use_true_random=False))
def test_neither_order_nor_packing_makes_a_difference(args: dict[str, Any], order: random.Random) -> None:
    try:
        packed = canonical(args)
    except Refused:  # deeper than anything here may be
        return
    assert canonical(shuffled(args, order)) == packed
    assert canonical(unpack(packed)) == packed
    assert unpack(packed) == args


def test_the_order_is_that_of_the_bytes_not_of_the_characters() -> None:
    # U+FFFF is before U+10000 in UTF-8, and after its surrogates in UTF-16; a length plays no part.
    assert canonical({"\U00010000": 1, "￿": 2, "zz": 3, "a": 4}) == msgpack.packb(
        {"a": 4, "zz": 3, "￿": 2, "\U00010000": 1}
    )


@pytest.mark.parametrize(
    "other", [("run", "t", "p", {"a": 2}), ("plan", "t", "p", {"a": 1}), ("run", "p", "t", {"a": 1})]
)
def test_whatever_is_otherwise_is_another_command(other: tuple[str, str, str, dict[str, object]]) -> None:
    assert command_digest(*other) != command_digest("run", "t", "p", {"a": 1})


def test_bytes_and_text_are_not_the_same() -> None:
    assert command_digest("run", "t", "p", {"a": b"x"}) != command_digest("run", "t", "p", {"a": "x"})
