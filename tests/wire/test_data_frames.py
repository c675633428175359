"""Data frames laid out by hand are those that msgpack makes, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immured.wire.data_frames import DataFrames, data_in
from immured.wire.envelope import decode_envelope
from immured.wire.frames import HEADER, encode_frame
from immured.wire.messages import MAX_DATA, Data, data_body, parse_data

NONCES = st.binary(min_size=16, max_size=16)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


@given(NONCES, NAMES, st.binary(max_size=300))
def test_the_parts_are_what_msgpack_makes(nonce: bytes, name: str, data: bytes) -> None:
    assert b"".join(DataFrames(nonce, name).parts(data)) == encode_frame(data_body(nonce, name, data))


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_000, 65_535, MAX_DATA])
def test_every_width_of_a_length(size: int) -> None:
    data = bytes(size)
    frame = b"".join(DataFrames(bytes(16), "stdout").parts(data))
    assert frame == encode_frame(data_body(bytes(16), "stdout", data))
    assert data_in(frame[HEADER:]) == Data(bytes(16), "stdout", data)


def test_no_more_than_a_frame_may_carry() -> None:
    with pytest.raises(ValueError, match="65537"):
        DataFrames(bytes(16), "stdout").parts(bytes(MAX_DATA + 1))


@given(NONCES, st.text(st.characters(codec="ascii"), min_size=1, max_size=31), st.binary(max_size=300))
def test_what_is_laid_out_so_is_read(nonce: bytes, name: str, data: bytes) -> None:
    assert data_in(data_body(nonce, name, data)) == Data(nonce, name, data)


@given(st.binary(max_size=60), st.data())
def test_what_was_tampered_with_is_read_the_same_way_or_not_at_all(data: bytes, draw: st.DataObject) -> None:
    body = bytearray(data_body(bytes(range(16)), "stdout", data))
    place = draw.draw(st.integers(0, len(body) - 1))
    body[place] = draw.draw(st.integers(0, 255))
    found = data_in(bytes(body))
    if found is not None:
        assert found == parse_data(decode_envelope(bytes(body)).payload)


@given(st.binary(max_size=200))
def test_anything_else_is_not_taken_for_one(body: bytes) -> None:
    assert data_in(body) is None
