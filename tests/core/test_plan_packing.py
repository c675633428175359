"""Plans packed in C, read back by a reader that knows only native/launcher/protocol.h's words."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immured import _core
from immured._abi import lib

Step = tuple[int, tuple[int, ...], tuple[bytes, ...]]

STEPS = st.lists(
    st.tuples(
        st.integers(0, 2**32 - 1),
        st.lists(st.integers(0, 2**64 - 1), max_size=8).map(tuple),
        st.lists(st.binary(max_size=40), max_size=8).map(tuple),
    ),
    max_size=20,
)


def unpack(plan: bytes) -> list[Step]:
    """Read a plan as the header describes it, checking what it promises on the way."""
    magic, version, count, length = struct.unpack_from("=IIII", plan)
    assert (magic, version, length) == (lib.IMD_PLAN_MAGIC, lib.IMD_PROTOCOL_VERSION, len(plan))
    at = 16
    steps: list[Step] = []
    for _ in range(count):
        op, numbers, strings = struct.unpack_from("=IHH", plan, at)
        at += 8
        values = struct.unpack_from(f"={numbers}Q", plan, at)
        at += 8 * numbers
        texts = []
        for _ in range(strings):
            (size,) = struct.unpack_from("=I", plan, at)
            end = (at + 4 + size + 1 + 7) & ~7
            assert not any(plan[at + 4 + size : end]), "padding is NULs, at least one"
            texts.append(plan[at + 4 : at + 4 + size])
            at = end
        steps.append((op, values, tuple(texts)))
    assert at == len(plan)
    return steps


@given(STEPS)
def test_what_is_packed_is_read_back(steps: list[Step]) -> None:
    assert unpack(_core.pack_plan(steps)) == steps


@given(STEPS)
def test_everything_is_aligned_to_eight(steps: list[Step]) -> None:
    assert len(_core.pack_plan(steps)) % 8 == 0


@pytest.mark.parametrize("number", [-1, 2**64])
def test_a_number_that_does_not_fit_is_refused(number: int) -> None:
    with pytest.raises(OverflowError):
        _core.pack_plan([(1, (number,), ())])


@pytest.mark.parametrize("op", [-1, 2**32])
def test_an_operation_that_does_not_fit_is_refused(op: int) -> None:
    with pytest.raises(OverflowError):
        _core.pack_plan([(op, (), ())])


@pytest.mark.parametrize(
    "step",
    [(1, [2], ()), (1, (), [b"x"]), (1, (), ("x",)), (1, (), (bytearray(b"x"),)), (1, ()), [1, (), ()], ("1", (), ())],
)
def test_a_step_of_another_shape_is_refused(step: object) -> None:
    with pytest.raises(TypeError):
        _core.pack_plan([step])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([(1, (), ())] * (lib.IMD_MAX_STEPS + 1), "at most 512 steps"),
        ([(1, (0,) * 65536, ())], "at most 65535"),
        ([(1, (), (b"",) * 65536)], "at most 65535"),
        ([(1, (), (b"x" * (lib.IMD_MAX_STRING + 1),))], "a string of 1048577 bytes"),
        ([(1, (), (b"x" * lib.IMD_MAX_STRING,) * 5)], "the plan is over"),
    ],
)
def test_a_bound_of_the_protocol_is_kept(steps: list[Step], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        _core.pack_plan(steps)
