"""TOML that strangers send is parsed in bounded time, or not at all."""

from __future__ import annotations

import contextlib
import time

import pytest

from immured.wire.strict_toml import parse_toml

PARTS = ["a.", "a . ", '"a".', "'a'.", '"\\"".', '"".']


@pytest.mark.parametrize("part", PARTS)
def test_a_key_of_very_many_parts_is_not_looked_at(part: str) -> None:
    with pytest.raises(ValueError, match=r"^nested too deeply$"):
        parse_toml(("[" + part * 40 + "a]\n").encode())
    parse_toml(("[" + part * 20 + "a]\n").encode())


@pytest.mark.parametrize(
    "text", ['a = "{}"', "a = '{}'", 'a = """\n{}"""', "a = '''\n\"{}'''", "a = 1 # {}", 'a = ["x", "/{}"]', '"{}" = 1']
)
def test_dots_in_a_text_are_a_text(text: str) -> None:
    parse_toml(text.format("a." * 100).encode())


@pytest.mark.parametrize(
    "text",
    [
        'a = "#"\n{}a = 1',
        "a = '\"'\n[{}a]",
        'x = """\\""""\n{}a=1',
        "# '\n{}a = 1",
        'x={{a="""b"""", {}a=1}} #"',
        "x={{a='''b'''', {}a=1}} #'",
    ],
)
def test_no_text_hides_a_key(text: str) -> None:
    with pytest.raises(ValueError, match=r"^nested too deeply$"):
        parse_toml(text.format("a." * 100).encode())


@pytest.mark.parametrize("text", ["a = " + "[" * 50_000, "a=" + "{a=" * 50_000])
def test_what_nests_too_deeply_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^nested too deeply$"):
        parse_toml(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        ("a" * 65 + ".") * 3900 + "a=1",
        "a." * 31 + "b=1\n" + ("a." * 31 + "=") * 4000,
        '"' * 260_000,
        "'" * 260_000,
        ("a." * 31 + " x ") * 4000,
        '"a.' * 80_000,
        "a = '" + "a." * 130_000,
        "#" + "a." * 130_000,
    ],
    ids=lambda text: text[:12],
)
def test_a_quarter_of_a_megabyte_takes_seconds_at_most(text: str) -> None:
    began = time.process_time()
    with contextlib.suppress(ValueError):
        parse_toml(text[: 256 * 1024].encode())
    assert time.process_time() - began < 10


@pytest.mark.parametrize("raw", [b"\xff", b"a = ", b"a = 1\na = 2", b"a = " + b"9" * 5000])
def test_what_is_no_toml_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_toml(raw)
