"""Sentences on a terminal: broken where a reader expects it, no wider than it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immured.cli.prose import heading, width_of, wrapped
from immured.manifest.consent_texts import shipped_texts

TEXTS = shipped_texts()


@pytest.mark.parametrize("width", [20, 33, 80])
@pytest.mark.parametrize("language", TEXTS.languages("workspace"))
def test_every_shipped_text_fits(language: str, width: int) -> None:
    text = TEXTS.get("workspace", language)
    assert text is not None
    lines = wrapped(text.text, width).split("\n")
    assert len(lines) > 1
    assert all(width_of(line) <= width for line in lines)
    assert all(line == line.strip() for line in lines)
    joined = "".join("".join(lines).split())
    assert joined == "".join(text.text.split())


def test_no_line_of_chinese_begins_with_what_ends_a_sentence() -> None:
    text = TEXTS.get("workspace", "zh-Hans")
    assert text is not None
    for width in range(20, 60):
        assert not any(line[0] in "，。：" for line in wrapped(text.text, width).split("\n"))


def test_wide_characters_are_two_cells_and_marks_none() -> None:
    assert width_of("中文") == 4
    assert width_of("é") == width_of("e\u0301") == 1
    assert wrapped("中文" * 12, 20).split("\n") == ["中文" * 5, "中文" * 5, "中文" * 2]


def test_paragraphs_stay_apart_and_spaces_that_bind_bind() -> None:
    assert wrapped("one\n\ntwo", 40) == "one\n\ntwo"
    assert wrapped("a word and 10\u00a0000 more of them", 20) == "a word and 10\u00a0000\nmore of them"


@given(st.text(max_size=200), st.integers(1, 40))
def test_nothing_of_a_stranger_reaches_the_terminal_as_a_control_character(text: str, width: int) -> None:
    shown = wrapped(text, width)
    assert all(one.isprintable() or one in "\n\u00a0\u202f\u3000\u200c\u200d" for one in shown)


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {}])
def test_without_a_terminal_a_heading_is_its_text(environment: dict[str, str]) -> None:
    assert heading("Consent", environment) == "Consent"
