"""The fuzzer's checks, as a test: on the vectors, near them, and on any bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.fuzz_wire import known_inputs, one_input

KNOWN = known_inputs()


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    one_input(data)


@given(st.sampled_from(KNOWN), st.data())
def test_bytes_near_what_is_known(seed: bytes, data: st.DataObject) -> None:
    mutated = bytearray(seed or b"\0")
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    one_input(bytes(mutated))


@pytest.mark.parametrize("number", range(len(KNOWN)))
def test_what_is_known(number: int) -> None:
    one_input(KNOWN[number])
