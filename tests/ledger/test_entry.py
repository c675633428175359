"""What an entry can hold, how it enters, and what a reader refuses."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immured.ledger.entry import (
    HEAD,
    MAX_INTEGER,
    MAX_LINE,
    MAX_TEXT,
    NO_LEAF,
    LineError,
    build_line,
    encode_body,
    encode_value,
    leaf_hash,
    parse_line,
)

TS = "2026-11-21T23:30:00.000000001Z"


def line(data: dict[str, object], actor: dict[str, object] | None = None) -> bytes:
    return build_line(7, TS, encode_body("run.accepted", actor or {}, data), "ab" * 32)


def test_a_line_reads_back_as_it_was_said() -> None:
    made = line({"argv": ["/bin/echo", "grüße"], "n": -3, "ok": True}, {"key": "k"})
    entry = parse_line(made)
    assert (entry.seq, entry.ts, entry.type, entry.prev) == (7, TS, "run.accepted", "ab" * 32)
    assert (entry.actor, entry.data) == ({"key": "k"}, {"argv": ["/bin/echo", "grüße"], "n": -3, "ok": True})


def test_a_leaf_is_the_hash_of_zero_and_the_line() -> None:
    made = line({})
    assert parse_line(made).leaf == leaf_hash(made) == hashlib.sha256(b"\x00" + made).digest()


def test_text_of_1024_bytes_enters_whole() -> None:
    assert encode_value("é" * 512) == "é" * 512


def test_text_over_1024_bytes_enters_by_digest() -> None:
    text = "é" * 513
    assert encode_value(text) == {
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "len": 1026,
        "head": "é" * (HEAD // 2),
    }


def test_a_head_is_never_half_a_character() -> None:
    encoded = encode_value("x" + "é" * 1000)
    assert isinstance(encoded, dict)
    assert encoded["head"] == "x" + "é" * 127


def test_bytes_that_are_text_enter_as_text() -> None:
    assert encode_value("grüße".encode()) == "grüße"


def test_bytes_that_are_not_text_enter_as_base64() -> None:
    assert encode_value(b"\xff\x00") == {"b64": "/wA="}


def test_long_bytes_that_are_not_text_enter_by_digest() -> None:
    raw = b"\xff" * (MAX_TEXT + 1)
    assert encode_value(raw) == {
        "sha256": hashlib.sha256(raw).hexdigest(),
        "len": MAX_TEXT + 1,
        "head": {"b64": base64.b64encode(raw[:HEAD]).decode()},
    }


def test_a_path_that_python_decoded_with_escapes_enters_as_its_bytes() -> None:
    assert encode_value(b"/tmp/\xff".decode("utf-8", "surrogateescape")) == {
        "b64": base64.b64encode(b"/tmp/\xff").decode()
    }


def test_half_a_surrogate_pair_enters_as_bytes() -> None:
    assert encode_value("\ud800") == {"b64": base64.b64encode(b"\xed\xa0\x80").decode()}


@pytest.mark.parametrize("value", [MAX_INTEGER, -MAX_INTEGER])
def test_integers_up_to_2_to_the_53_enter_as_numbers(value: int) -> None:
    assert encode_value(value) == value


@pytest.mark.parametrize("value", [MAX_INTEGER + 1, -MAX_INTEGER - 1, 2**64])
def test_larger_integers_enter_as_their_digits(value: int) -> None:
    assert encode_value(value) == str(value)


@pytest.mark.parametrize("value", [None, 1.5, {1: 2}, {None: 1}, {"k": None}, [float("nan")], {1, 2}])
def test_what_has_no_place_in_an_entry_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"data\.x"):
        line({"x": value})


def test_a_key_of_bytes_that_are_text_enters_as_text() -> None:
    assert encode_value({b"k": 1}) == {"k": 1}


@pytest.mark.parametrize("key", ["k" * 1025, b"/tmp/\xff"])
def test_a_key_that_cannot_stand_as_text_enters_as_its_digest(key: str | bytes) -> None:
    raw = key.encode() if isinstance(key, str) else key
    assert encode_value({key: 1}) == {f"sha256:{hashlib.sha256(raw).hexdigest()}": 1}


def test_no_key_takes_anothers_place() -> None:
    assert encode_value({"k": 1, b"k": 2}) == {"k": 1, "k~": 2}


def test_an_actor_that_fills_a_line_enters_by_digest() -> None:
    made = parse_line(line({"argv": ["x" * 1000] * 60}, {"key": "k", "sub": ["\x01" * 1000] * 9}))
    assert made.actor["key"] == "k"
    assert isinstance(made.actor["sub"], dict)


def test_nesting_is_bounded() -> None:
    deep: object = 1
    for _ in range(20):
        deep = [deep]
    with pytest.raises(ValueError, match="nested deeper"):
        encode_value(deep)


def test_a_refusal_names_the_place() -> None:
    with pytest.raises(ValueError, match=r"data\.run\.argv\[1\]"):
        line({"run": {"argv": ["a", 1.5]}})


@pytest.mark.parametrize("name", ["run", "Run.accepted", "run.", "run..x", "a." + "b" * 64, 'run.x"', ""])
def test_a_type_is_a_dotted_name(name: str) -> None:
    with pytest.raises(ValueError, match="entry type"):
        encode_body(name, {}, {})


def test_what_does_not_fit_a_line_enters_by_the_digest_of_its_json() -> None:
    argv = ["x" * 1000 for _ in range(100)]
    made = line({"argv": argv, "sandbox": "s1"})
    assert len(made) <= MAX_LINE
    data = parse_line(made).data
    raw = json.dumps(argv, separators=(",", ":")).encode()
    assert data == {
        "argv": {
            "sha256": hashlib.sha256(raw).hexdigest(),
            "len": len(raw),
            "head": raw[:HEAD].decode(),
            "of": "json",
        },
        "sandbox": "s1",
    }


@pytest.mark.parametrize("length", range(1, 1024, 7))
def test_no_line_is_over_65535_bytes(length: int) -> None:
    assert len(line({"argv": ["x" * 1000] * 65, "pad": "y" * length})) <= MAX_LINE


@pytest.mark.parametrize("char", ["\x7f", "\x9b", "\u200b", "\u202e", "\u2066", "\u2028", "\ufeff", "\U000e0041"])
def test_characters_that_nobody_sees_are_escaped(char: str) -> None:
    made = line({"argv": [f"a{char}b"]})
    assert char.encode() not in made
    assert parse_line(made).data == {"argv": [f"a{char}b"]}


def test_a_newline_in_a_value_makes_no_second_line() -> None:
    assert b"\n" not in line({"argv": ["a\nb\r"]})


values = st.recursive(
    st.text(max_size=1500) | st.binary(max_size=1500) | st.integers() | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=20), values, max_size=8))
def test_whatever_enters_is_one_good_line(data: dict[str, object]) -> None:
    made = line(data)
    assert b"\n" not in made
    assert len(made) <= MAX_LINE
    assert parse_line(made).data == encode_value(data)


GOOD = line({"a": 1}).decode()
BAD = {
    "empty": ("", "bad_json"),
    "white space first": (" " + GOOD, "bad_json"),
    "white space after": (GOOD + " ", "bad_json"),
    "two objects": (GOOD + GOOD, "bad_json"),
    "an array": ("[]", "bad_json"),
    "cut short": (GOOD[:-1], "bad_json"),
    "a control character in a string": (GOOD.replace("run.accepted", "run.\taccepted"), "bad_json"),
    "a duplicate key": (GOOD.replace('"a":1', '"a":1,"a":1'), "duplicate_key"),
    "a duplicate field": (GOOD.replace('"v":1,', '"v":1,"v":1,'), "duplicate_key"),
    "a float": (GOOD.replace('"a":1', '"a":1.0'), "bad_number"),
    "an exponent": (GOOD.replace('"a":1', '"a":1e3'), "bad_number"),
    "NaN": (GOOD.replace('"a":1', '"a":NaN'), "bad_number"),
    "an integer over 2**53": (GOOD.replace('"a":1', '"a":9007199254740992'), "bad_number"),
    "an integer of many digits": (GOOD.replace('"a":1', '"a":' + "9" * 5000), "bad_number"),
    "null": (GOOD.replace('"a":1', '"a":null'), "bad_value"),
    "half a surrogate pair": (GOOD.replace('"a":1', '"a":"\\ud800"'), "bad_text"),
    "deep nesting": (GOOD.replace('"a":1', '"a":' + "[" * 20 + "]" * 20), "too_deep"),
    "very deep nesting": (GOOD.replace('"a":1', '"a":' + "[" * 30000 + "]" * 30000), "too_deep"),
    "a field too many": (GOOD.replace('"v":1,', '"v":1,"w":1,'), "bad_fields"),
    "a field missing": (GOOD.replace('"v":1,', ""), "bad_fields"),
    "another version": (GOOD.replace('"v":1', '"v":2'), "bad_version"),
    "true for a version": (GOOD.replace('"v":1', '"v":true'), "bad_version"),
    "a negative seq": (GOOD.replace('"seq":7', '"seq":-7'), "bad_seq"),
    "text for a seq": (GOOD.replace('"seq":7', '"seq":"7"'), "bad_seq"),
    "true for a seq": (GOOD.replace('"seq":7', '"seq":true'), "bad_seq"),
    "a local time": (GOOD.replace("01Z", "01+00:00"), "bad_ts"),
    "microseconds": (GOOD.replace(".000000001Z", ".000001Z"), "bad_ts"),
    "a day that no calendar has": (GOOD.replace("11-21", "02-30"), "bad_ts"),
    "digits of another script": (GOOD.replace("2026", "٢٠٢٦"), "bad_ts"),
    "a type in capitals": (GOOD.replace("run.accepted", "Run.Accepted"), "bad_type"),
    "an actor that is no map": (GOOD.replace('"actor":{}', '"actor":[]'), "bad_actor"),
    "data that is no map": (GOOD.replace('"data":{"a":1}', '"data":1'), "bad_data"),
    "a prev in capitals": (GOOD.replace("ab" * 32, "AB" * 32), "bad_prev"),
    "a short prev": (GOOD.replace("ab" * 32, "ab" * 31), "bad_prev"),
    "too long": (GOOD.replace('"a":1', '"a":"' + "x" * MAX_LINE + '"'), "line_too_long"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_reader_refuses(name: str) -> None:
    text, code = BAD[name]
    with pytest.raises(LineError) as caught:
        parse_line(text.encode())
    assert caught.value.code == code


@pytest.mark.parametrize("raw", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80"])
def test_a_reader_refuses_what_is_not_utf8(raw: bytes) -> None:
    with pytest.raises(LineError) as caught:
        parse_line(GOOD.encode().replace(b"run.accepted", raw))
    assert caught.value.code == "bad_text"


@given(st.binary(max_size=400))
def test_any_bytes_are_an_entry_or_a_line_error(raw: bytes) -> None:
    try:
        parse_line(raw)
    except LineError:
        return


@given(st.text(max_size=200), st.integers(0, len(GOOD)))
def test_a_good_line_with_something_put_in_is_an_entry_or_a_line_error(text: str, at: int) -> None:
    try:
        parse_line((GOOD[:at] + text + GOOD[at:]).encode("utf-8", "surrogatepass"))
    except LineError:
        return


def test_spaces_between_tokens_are_json_too() -> None:
    assert parse_line(json.dumps(json.loads(GOOD)).encode()).data == {"a": 1}


def test_the_order_of_fields_is_free() -> None:
    fields = json.loads(GOOD)
    assert parse_line(json.dumps(dict(reversed(fields.items()))).encode()).seq == 7


def test_line_zero_has_no_line_before() -> None:
    assert NO_LEAF == "0" * 64
