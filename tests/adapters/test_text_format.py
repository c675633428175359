"""A strict reader of protobuf's text format."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immured.adapters.text_format import Field, read_text
from immured.errors import Refused

INNER = {"path": Field("string"), "flag": Field("bool")}
FIELDS = {
    "name": Field("string"),
    "raw": Field("bytes"),
    "line": Field("string", repeated=True),
    "count": Field("uint32"),
    "level": Field("int32"),
    "big": Field("uint64"),
    "on": Field("bool"),
    "mode": Field("enum", values=("ONCE", "LISTEN")),
    "one": Field("message", fields=INNER),
    "many": Field("message", repeated=True, fields=INNER),
}

READ = {
    "": {},
    "# only a comment": {},
    'name: "a"': {"name": ["a"]},
    "name: 'a' 'b'  \"c\"": {"name": ["abc"]},
    'name: "over\nlines"': {"name": ["over\nlines"]},
    'name: "a",\ncount: 3;': {"name": ["a"], "count": [3]},
    'line: "a" line: "b"': {"line": ["a", "b"]},
    'line: ["a", "b"]': {"line": ["a", "b"]},
    "line: []": {"line": []},
    "count: 0x10": {"count": [16]},
    "count: 010": {"count": [8]},
    "level: -5": {"level": [-5]},
    "big: 18446744073709551615": {"big": [2**64 - 1]},
    "on: true": {"on": [True]},
    "on: f": {"on": [False]},
    "on: 1": {"on": [True]},
    "mode: LISTEN": {"mode": ["LISTEN"]},
    "one { }": {"one": [{}]},
    'one: { path: "/" flag: true }': {"one": [{"path": ["/"], "flag": [True]}]},
    'many { path: "a" } many { }': {"many": [{"path": ["a"]}, {}]},
    "many: [{ flag: true }, { }]": {"many": [{"flag": [True]}, {}]},
    r'raw: "\x00\377\n\\\""': {"raw": [b'\x00\xff\n\\"']},
    r'name: "[\\H:\\t]\\$ é \u00e9 \U0001F600"': {"name": ["[\\H:\\t]\\$ é é 😀"]},
}


@pytest.mark.parametrize("text", READ)
def test_what_the_format_says_is_read(text: str) -> None:
    assert read_text(text, FIELDS) == READ[text]


REFUSED = {
    'nmae: "a"': "line 1: 'nmae' is no field",
    'name: "a"\nname: "b"': "line 2: 'name' is given twice",
    'name "a"': "line 1: '\"a\"' follows name; a colon does",
    "name: a": "line 1: 'a' is no value of name",
    "name:": "the text ends where name has no value",
    'name: "a': "line 1: '\"a' is no part of the text format",
    "count: -1": "line 1: '-1' is no value of count",
    "count: 4294967296": "line 1: '4294967296' is no value of count",
    "count: 089": "line 1: '089' is no value of count",
    "count: 1.5": "line 1: '1.5' is no part of the text format",
    "on: maybe": "line 1: 'maybe' is no value of on",
    "mode: TWICE": "line 1: 'TWICE' is no value of mode",
    "mode: 1": "line 1: '1' is no value of mode",
    "one {": "the text ends within one",
    "one }": "line 1: '}' begins no one; `{` does",
    "}": "line 1: '}' closes what was not opened",
    "one { path: 1 }": "line 1: '1' is no value of path",
    'one < path: "a" >': "line 1: '< path: \"a\" >' is no part of the text format",
    "[type.googleapis.com/x] { }": "line 1: '.googleapis.com/' is no part of the text format",
    "[type] { }": "line 1: '[' is no field's name",
    r'name: "\q"': "line 1: '\"\\\\q\"' has the escape '\\\\q', which there is not",
    r'raw: "\777"': "line 1: '\"\\\\777\"' has the escape '\\\\777', which there is not",
    'line: ["a" "b"': "line 1: '\"b\"' follows a list's value; a comma or `]` does",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_it_does_not_say_is_refused_by_line(text: str) -> None:
    with pytest.raises(Refused) as refused:
        read_text(text, FIELDS)
    assert refused.value.message == REFUSED[text]


def test_no_text_nests_without_end() -> None:
    deep: dict[str, Field] = {}
    deep["in"] = Field("message", fields=deep)
    with pytest.raises(Refused, match="nests too deeply"):
        read_text("in {" * 1000 + "}" * 1000, deep)


@given(st.text(alphabet=st.sampled_from(list("abnameon:{}[],;\"'\\ #\n0x19-")), max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read_text(text, FIELDS)
    except Refused as refused:
        if refused.code != "adapter_invalid":
            raise
