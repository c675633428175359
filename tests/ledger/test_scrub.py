"""A secret that is known enters no entry, whatever text it stands in."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immured.ledger import Ledger, create
from immured.ledger.entry import encode_body
from immured.ledger.scrub import LEAST, Scrubber

SECRET = 'pä/"ss\nwörd+&7'
ACTOR = {"key": "ed25519:2bd806c97f0e00af1a1fc3328fa763a9"}


def scrubbed(value: object, secret: bytes = SECRET.encode()) -> Any:
    scrubber = Scrubber()
    scrubber.add("API_KEY", secret)
    _, data = scrubber.scrub(ACTOR, {"value": value})
    return data["value"]


@pytest.mark.parametrize(
    "encoded",
    [
        SECRET,
        SECRET.encode().hex(),
        SECRET.encode().hex().upper(),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("="),
        quote(SECRET),
        quote(SECRET, ""),
        quote(SECRET, "").lower(),
        quote_plus(SECRET),
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
        json.dumps(json.dumps({"a": SECRET}))[1:-1],
        ascii(SECRET)[1:-1],
    ],
)
def test_every_usual_encoding_of_it_is_found_within_a_longer_text(encoded: str) -> None:
    assert "[secret API_KEY]" in scrubbed(f"--token={encoded} --more")
    assert encoded not in scrubbed(f"--token={encoded} --more")


@given(st.binary(max_size=9), st.binary(min_size=8, max_size=64), st.binary(max_size=9))
def test_it_is_found_wherever_in_base64_of_something_longer_it_begins(
    before: bytes, secret: bytes, after: bytes
) -> None:
    found = scrubbed(base64.b64encode(before + secret + after).decode(), secret)
    assert "[secret API_KEY]" in found


@given(st.recursive(
    st.one_of(st.text(), st.binary(), st.integers(), st.booleans()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=20,
))  # fmt: skip
def test_what_holds_none_is_the_same_object(value: object) -> None:
    scrubber = Scrubber()
    scrubber.add("API_KEY", b"\xffnobody says this\xfe")
    data = {"value": value}
    assert scrubber.scrub(ACTOR, data)[1] is data


@given(st.text(), st.binary(min_size=LEAST, max_size=80), st.text())
def test_no_line_holds_it_in_texts_bytes_lists_or_keys(before: str, secret: bytes, after: str) -> None:
    scrubber = Scrubber()
    scrubber.add("s", secret)
    text = before.encode("utf-8", "replace") + secret + after.encode("utf-8", "replace")
    lost = text.decode("utf-8", "surrogateescape")
    given_data: dict[str, object] = {"argv": [lost, text], "env": {lost: [text]}, "deep": ({"x": bytearray(text)},)}
    actor, data = scrubber.scrub(ACTOR, given_data)
    assert not any(secret in one for one in _octets(data))
    encode_body("run.accepted", actor, data)


def _octets(value: object) -> Iterator[bytes]:
    """Of each text by itself: what two of them make beside each other was nobody's secret."""
    if isinstance(value, dict):
        for item in value.items():
            yield from _octets(item)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _octets(one)
    elif isinstance(value, str):
        yield value.encode("utf-8", "surrogateescape")
    elif isinstance(value, bytes | bytearray):
        yield bytes(value)


def test_a_long_text_enters_by_the_digest_of_what_is_left_of_it(tmp_path: Path) -> None:
    create(tmp_path, "ed25519:" + "a" * 32)
    with Ledger.open(tmp_path) as ledger:
        scrubber = Scrubber()
        scrubber.add("API_KEY", SECRET.encode())
        ledger.scrubber = scrubber
        ledger.entry("run.accepted", ACTOR, {"argv": ["x" * 2000 + SECRET]}).wait()
        ledger.entry("run.accepted", ACTOR, {"argv": ["x" * 2000 + "[secret API_KEY]"]}).wait()
    lines = (tmp_path / "ledger" / "current.jsonl").read_bytes().splitlines()
    first, second = (json.loads(line)["data"]["argv"] for line in lines[-2:])
    assert first == second


def test_two_keys_that_are_one_without_it_keep_both_values() -> None:
    assert scrubbed({SECRET: 1, "[secret API_KEY]": 2}) == {"[secret API_KEY]": 1, "[secret API_KEY]~": 2}


def test_of_two_that_begin_alike_the_longer_is_taken_whole() -> None:
    scrubber = Scrubber()
    scrubber.add("short", b"hunter22")
    scrubber.add("long", b"hunter22-and-more")
    assert scrubber.scrub({}, {"a": "hunter22-and-more hunter22"})[1] == {"a": "[secret long] [secret short]"}


def test_what_was_removed_is_no_secret_any_more() -> None:
    scrubber = Scrubber()
    scrubber.add("API_KEY", SECRET.encode())
    scrubber.remove("API_KEY")
    assert not scrubber
    assert scrubber.scrub(ACTOR, {"a": SECRET})[1] == {"a": SECRET}


@pytest.mark.parametrize(("name", "secret"), [("", b"long enough"), ("a b", b"long enough"), ("x", b"short")])
def test_what_could_not_be_told_apart_is_no_secret(name: str, secret: bytes) -> None:
    with pytest.raises(ValueError, match="secret"):
        Scrubber().add(name, secret)
