"""What the command line says by itself."""

from __future__ import annotations

import json

import pytest

from immured.cli.say import complain, json_text, printable


@pytest.mark.parametrize("hostile", ["\x1b[2J", "a\nremedy: pay", "\x9b31m", "\u202etxt.exe", "\x00", "\r"])
def test_nothing_that_a_stranger_typed_reaches_the_terminal_as_a_control_character(hostile: str) -> None:
    assert printable(hostile).isprintable()


def test_what_is_printable_stays_as_it_is() -> None:
    assert printable("größer, 大きい, plain") == "größer, 大きい, plain"


def test_a_path_that_is_not_utf8_can_be_printed() -> None:
    assert printable(b"/tmp/\xff".decode(errors="surrogateescape")).encode()


def test_an_error_is_a_line_and_its_remedy_another(capsys: pytest.CaptureFixture[str]) -> None:
    complain("path_denied", "no right to\n/secret", "ask its owner")
    assert capsys.readouterr().err == "immure: path_denied: no right to\\n/secret\nremedy: ask its owner\n"


def test_an_error_without_a_remedy_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    complain("internal", "it broke")
    assert capsys.readouterr().err == "immure: internal: it broke\n"


def test_bytes_become_text_where_they_are_text_and_base64_where_they_are_not() -> None:
    shown = json.loads(json_text({"stdout": b"hello", "stderr": b"\xff\x00"}))
    assert shown == {"stdout": "hello", "stderr": {"b64": "/wA="}}


def test_digests_become_hex_however_their_bytes_look() -> None:
    shown = json.loads(json_text({"streams": {"stdout": {"sha256": b"a" * 32}}, "receipt": {"leaf": b"\xff" * 32}}))
    assert shown == {"streams": {"stdout": {"sha256": "61" * 32}}, "receipt": {"leaf": "ff" * 32}}
