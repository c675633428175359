"""Whatever the bytes are: one value or one typed error, and nothing allocated on a stranger's word."""

from __future__ import annotations

import contextlib
import itertools
import tracemalloc

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from immured.errors import Refused
from immured.wire.envelope import MAX_KEY_ID, MAX_SIGNATURES, decode_envelope, encode_envelope, seal, verify
from immured.wire.frames import HEADER, MAX_FRAME, FrameReader, encode_frame
from immured.wire.keys import PrivateKey
from immured.wire.messages import COMMAND, parse_command, parse_data, parse_reply
from immured.wire.strict_msgpack import MAX_DEPTH, pack, unpack

KEY = PrivateKey(bytes(32))

scalars = st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=20) | st.binary(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=20,
)
anything = st.recursive(
    st.none() | st.floats() | scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(scalars, inner, max_size=4),
    max_leaves=15,
)


def depth(value: object) -> int:
    """How deep arrays and maps nest."""
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 1 + max(map(depth, value.values()), default=0) if isinstance(value, dict) else 0


def is_strict(value: object) -> bool:
    """Whether the protocol's msgpack carries the value."""
    if isinstance(value, list):
        return all(map(is_strict, value))
    if isinstance(value, dict):
        return all(type(key) is str for key in value) and all(map(is_strict, value.values()))
    return type(value) in (bool, int, str, bytes)


@given(values)
def test_what_is_packed_is_unpacked(value: object) -> None:
    try:
        packed = pack(value)
    except Refused:
        assert depth(value) > MAX_DEPTH
    else:
        assert unpack(packed) == value


@given(anything)
def test_what_another_msgpack_writes_is_read_exactly_if_it_is_strict(value: object) -> None:
    try:
        read = unpack(msgpack.packb(value))
    except Refused:
        assert not is_strict(value) or depth(value) > MAX_DEPTH
    else:
        assert is_strict(value)
        assert read == value


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_typed_error(data: bytes) -> None:
    with contextlib.suppress(Refused):
        value = unpack(data)
        assert is_strict(value)
        assert depth(value) <= MAX_DEPTH


@given(
    st.lists(
        st.sampled_from(["ddffffffff", "dfffffffff", "c6ffffffff", "dbffffffff", "dcffff", "9f", "8f", "a161", "00"])
    )
)
def test_declared_lengths_are_not_believed(pieces: list[str]) -> None:
    data = bytes.fromhex("".join(pieces))
    tracemalloc.start()
    try:
        with contextlib.suppress(Refused):
            unpack(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=300))
def test_any_body_is_an_envelope_or_a_typed_error(body: bytes) -> None:
    with contextlib.suppress(Refused):
        assert len(decode_envelope(body).signatures) <= MAX_SIGNATURES


@given(st.text(min_size=1, max_size=40), st.binary(max_size=100))
def test_what_is_sealed_verifies_and_comes_out_as_it_went_in(kind: str, payload: bytes) -> None:
    envelope = decode_envelope(seal(kind, payload, [KEY]))
    verify(envelope, {KEY.id: KEY.public}.get)
    assert (envelope.type, envelope.payload) == (kind, payload)


@given(st.data())
def test_no_changed_byte_verifies(data: st.DataObject) -> None:
    body = bytearray(seal(COMMAND, b"\x80", [KEY]))
    position = data.draw(st.integers(0, len(body) - 1))
    body[position] ^= data.draw(st.integers(1, 255))
    try:
        verify(decode_envelope(bytes(body)), {KEY.id: KEY.public}.get)
    except Refused:
        return
    # What still verifies may be spelled otherwise in msgpack, and must say the same.
    assert decode_envelope(bytes(body)) == decode_envelope(seal(COMMAND, b"\x80", [KEY]))


@given(st.binary(max_size=200))
def test_any_payload_is_a_command_a_reply_a_piece_of_data_or_typed_errors(payload: bytes) -> None:
    for parse in (parse_command, parse_reply, parse_data):
        with contextlib.suppress(Refused):
            parse(payload)


@given(st.dictionaries(st.sampled_from(["aud", "cmd", "args", "nonce", "iat", "exp", "persona", "x"]), values))
def test_any_map_is_a_command_or_a_typed_error(fields: dict[str, object]) -> None:
    with contextlib.suppress(Refused):
        parse_command(msgpack.packb(fields))


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=6), st.data())
def test_frames_come_out_as_they_went_in_however_the_bytes_arrive(bodies: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(encode_frame, bodies))
    reader, found = FrameReader(), []
    while stream:
        take = data.draw(st.integers(1, reader.wanted()))
        frame = reader.feed(stream[:take])
        stream = stream[take:]
        if frame is not None:
            found.append(frame.body)
    assert found == bodies
    assert reader.at_boundary


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=6), st.data())
def test_no_read_is_asked_to_cross_a_header_s_or_a_body_s_end(bodies: list[bytes], data: st.DataObject) -> None:
    ends = list(itertools.accumulate(length for body in bodies for length in (HEADER, len(body))))
    stream, reader, position = b"".join(map(encode_frame, bodies)), FrameReader(), 0
    while position < len(stream):
        wanted = reader.wanted()
        assert position + wanted <= next(end for end in ends if end > position)
        take = data.draw(st.integers(1, wanted))
        reader.feed(stream[position : position + take])
        position += take


@given(st.binary(max_size=100))
def test_any_stream_is_frames_or_one_typed_error(stream: bytes) -> None:
    reader = FrameReader()
    with contextlib.suppress(Refused):
        while stream:
            wanted = reader.wanted()
            assert 0 < wanted <= MAX_FRAME
            reader.feed(stream[:wanted])
            stream = stream[wanted:]


@given(
    st.text(min_size=1, max_size=20),
    st.binary(max_size=20),
    st.lists(st.tuples(st.text(min_size=1), st.binary()), max_size=12),
)
def test_an_envelope_is_read_back_or_breaks_a_stated_bound(
    kind: str, payload: bytes, signatures: list[tuple[str, bytes]]
) -> None:
    ids = [keyid for keyid, _ in signatures]
    try:
        envelope = decode_envelope(encode_envelope(kind, payload, signatures))
    except Refused:
        assert len(ids) > MAX_SIGNATURES or len(set(ids)) < len(ids) or max(map(len, ids)) > MAX_KEY_ID
    else:
        assert envelope.signatures == tuple(signatures)
