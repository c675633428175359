"""What is native about a line says what the reference in Python says, to the byte, or leaves it to that."""

from __future__ import annotations

import enum
import json
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from immured._ledger_write import encode_members, seal_line
from immured.ledger import entry
from immured.ledger.entry import MAX_FRAME, MAX_INTEGER, MAX_LINE, MAX_TEXT, Body, build_line, leaf_hash
from immured.ledger.sealing import encode, seal
from immured.ledger.timestamps import parse_timestamp, timestamp

VECTORS = Path(__file__).parents[1] / "vectors" / "ledger"
TYPE = "run.accepted"
NS = 1_790_000_000_123_456_789
DAY_NS = 86_400 * 10**9


class Word(str):
    """Text of a type of its own."""

    __slots__ = ()


class Number(enum.IntEnum):
    SEVEN = 7


def viewed(raw: bytes) -> object:
    return memoryview(raw)


def said(encoding: Callable[[], bytes]) -> bytes | str:
    """The members, or why there are none."""
    try:
        return encoding()
    except ValueError as error:
        return f"{type(error).__name__}: {error}"


def assert_as_the_reference(data: dict[str, object], actor: dict[str, object] | None = None) -> None:
    actor = {} if actor is None else actor
    native = said(lambda: encode(TYPE, actor, data))
    assert native == said(lambda: entry.encode_body(TYPE, actor, data).members)


# Characters that are escaped, invisible, at the edges of UTF-8's lengths, or none at all.
edges = st.sampled_from(
    '"\\/\x00\x08\t\n\x0c\r\x1f ~\x7f\x80\x9f\xad\u061c\u070f\u07ff\u0800\u180e\u200b\u2028\u2060\u206f\ud7ff'
    "\ud800\udfff\udc80\ue000\ufeff\ufff0\uffff\U00010000\U000e0000\U000e0fff\U000e1000\U0010ffff"
)
texts = st.text(max_size=40) | st.text(edges, max_size=20)
long_texts = st.builds(lambda text, times: text * times, texts, st.integers(20, 400))
plain = (
    texts
    | long_texts
    | st.booleans()
    | st.integers()
    | st.sampled_from([MAX_INTEGER, -MAX_INTEGER, MAX_INTEGER + 1, -(2**63), 2**63, -(2**63) - 1])
    | st.binary(max_size=30)
    | st.binary(max_size=5).map(lambda raw: raw * 400)
    | texts.map(lambda text: text.encode("utf-8", "surrogatepass"))
)
odd = (
    st.none()
    | st.floats()
    | texts.map(Word)
    | st.just(Number.SEVEN)
    | st.binary(max_size=9).map(bytearray)
    | st.binary(max_size=9).map(viewed)
)
keys = texts | st.binary(max_size=9) | texts.map(Word) | long_texts | st.integers()
values = st.recursive(
    plain | odd,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(texts, inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=3)
        | st.dictionaries(texts, inner, max_size=2).map(types.MappingProxyType)
    ),
    max_leaves=20,
)


@settings(max_examples=600, deadline=None)
@given(st.dictionaries(keys, values, max_size=6), st.dictionaries(texts, plain, max_size=3))
@example({"k": 1, b"k": 2}, {})
@example({"argv": ["x" * 1000] * 80}, {"key": "k"})
def test_whatever_is_said_enters_as_the_reference_has_it(data: dict[str, object], actor: dict[str, object]) -> None:
    assert_as_the_reference(data, actor)


def test_every_character_enters_as_the_reference_has_it() -> None:
    for start in range(0, 0x110000, 256):
        assert_as_the_reference({"text": "".join(map(chr, range(start, start + 256)))})
    for code in range(256):  # and a byte that is no text
        assert_as_the_reference({"bytes": bytes([code]), "in text": b"a" + bytes([code]) + b"z"})


@pytest.mark.parametrize("odd_one", ['"', "\\", "\x00", "\x1f", "\x7f", "\x80", "\u200b", "é", "\U000e0041"])
def test_wherever_in_a_text_it_stands(odd_one: str) -> None:
    """Texts are looked at in eights."""
    for length in range(20):
        for at in range(length + 1):
            assert_as_the_reference({"t": "a" * at + odd_one + "z" * (length - at), odd_one * 2: odd_one})


@pytest.mark.parametrize("length", [MAX_TEXT - 1, MAX_TEXT, MAX_TEXT + 1, 70_000])
@pytest.mark.parametrize("piece", ["x", "é", "€", "\U0001f600", "\n"])
def test_texts_and_bytes_at_their_bound(length: int, piece: str) -> None:
    raw = piece.encode()
    for shift in range(len(raw)):
        text = "s" * shift + piece * (length // len(raw))
        assert_as_the_reference({"t": text, "b": text.encode(), "cut": text.encode()[:-1], "k" + text: 1})


@pytest.mark.parametrize("depth", range(12, 18))
@pytest.mark.parametrize("kind", ["map", "list", "tuple"])
def test_nesting_at_its_bound(depth: int, kind: str) -> None:
    deep: object = "end"
    for _ in range(depth):
        deep = {"d": deep} if kind == "map" else [deep] if kind == "list" else (deep,)
    assert_as_the_reference({"x": deep})


def test_what_holds_itself_is_refused() -> None:
    ring: list[object] = []
    ring.append(ring)
    with pytest.raises(ValueError, match="nested deeper"):
        encode(TYPE, {}, {"ring": ring})


def test_a_line_at_its_bound() -> None:
    room = MAX_LINE - MAX_FRAME - len(TYPE)
    whole = [*(["x" * 1000] * 64), "x" * 500]
    spare = room - len(entry.encode_body(TYPE, {}, {"argv": whole, "pad": ""}).members)
    for length in range(spare - 3, spare + 4):
        data: dict[str, object] = {"argv": whole, "pad": "y" * length}
        assert (encode_members({}, data, room) is None) == (length > spare)
        assert_as_the_reference(data)


@pytest.mark.parametrize(
    "value",
    [None, 1.5, {1, 2}, Number.SEVEN, bytearray(b"x"), memoryview(b"x"), 2**63, "\ud800", {1: 2}, {b"k": 1},
     {Word("k"): 1}, {"k" * (MAX_TEXT + 1): 1}, types.MappingProxyType({}), range(3)],
)  # fmt: skip
def test_what_is_not_plainly_of_pythons_own_types_is_left_to_the_reference(value: object) -> None:
    assert encode_members({}, {"x": value}, MAX_LINE) is None
    assert_as_the_reference({"x": value})


def test_the_published_lines_are_made_without_the_reference() -> None:
    """A fast path that declined everything would be right, and of no use."""
    lines = (VECTORS / "current.jsonl").read_bytes().splitlines()
    assert len(lines) > 5
    for line in lines:
        read = entry.parse_line(line)
        members = encode_members(read.actor, read.data, MAX_LINE)
        assert members == entry.encode_body(read.type, read.actor, read.data).members
        assert seal_line(read.seq, parse_timestamp(read.ts), read.type, members or b"", bytes.fromhex(read.prev)) == (
            line + b"\n",
            read.leaf,
        )


def by_reference(seq: int, ns: int, members: bytes, prev: bytes) -> tuple[bytes, bytes]:
    line = build_line(seq, timestamp(ns), Body(TYPE, members), prev.hex())
    return line + b"\n", leaf_hash(line)


@given(
    st.integers(0, MAX_INTEGER),
    st.integers(-(10**18), 2**64),
    st.integers(0, 300).map(lambda n: b'"actor":{},"data":{"x":"' + b"x" * n + b'"}'),
    st.binary(min_size=32, max_size=32),
)
@example(0, 0, b"", bytes(32))
@example(MAX_INTEGER, 2**63 - 1, b"", b"\xff" * 32)
def test_a_line_is_sealed_as_the_reference_does(seq: int, ns: int, members: bytes, prev: bytes) -> None:
    assert seal(seq, ns, TYPE, members, prev) == by_reference(seq, ns, members, prev)
    assert (seal_line(seq, ns, TYPE, members, prev) is None) == (not 0 <= ns < 2**63)


def test_every_day_has_its_date() -> None:
    for day in range(2**63 // DAY_NS):
        ns = day * DAY_NS + day % 86_400 * 10**9 + day
        sealed = seal_line(0, ns, TYPE, b"", bytes(32))
        assert sealed is not None
        assert json.loads(sealed[0].replace(b",,", b","))["ts"] == timestamp(ns)


@pytest.mark.parametrize("name", ["run", "Run.accepted", "a." + "b" * 64, 'run.x"', "", "run.é"])
def test_a_type_is_a_dotted_name_here_too(name: str) -> None:
    for _ in range(2):  # what was refused once is not let in because it was seen
        with pytest.raises(ValueError, match="entry type"):
            encode(name, {}, {})


@pytest.mark.parametrize("prev", [b"", bytes(31), bytes(33)])
def test_a_leaf_of_another_length_is_refused(prev: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        seal_line(0, NS, TYPE, b"", prev)
