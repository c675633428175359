"""Patterns of a command's words."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immured.manifest.words import escape, fits, word_problem

WORDS = st.lists(st.text("a.*\\-", max_size=6).map(str.encode), max_size=5)


def pattern(text: str) -> list[bytes]:
    return text.encode().split()


@pytest.mark.parametrize(
    ("words", "wanted", "answer"),
    [
        ("", "", True),
        ("status", "", False),
        ("status", "status", True),
        ("status -s", "status", False),
        ("", "status", False),
        ("log --oneline main", "log --oneline *", True),
        ("log --oneline", "log --oneline *", False),
        ("log --oneline a b", "log --oneline *", False),
        ("diff", "diff ...", True),
        ("diff a", "diff ...", True),
        ("diff a b c", "diff ...", True),
        ("difference", "diff ...", False),
        ("", "...", True),
        ("anything at all", "...", True),
        ("--depth=", "--depth=*", True),
        ("--depth=5", "--depth=*", True),
        ("--depth", "--depth=*", False),
        ("https://example.org/a.git", "https://example.org/*.git", True),
        ("https://example.org/a.gitx", "https://example.org/*.git", False),
        ("aba", "a*ba", True),
        ("aba", "ab*ba", False),
        ("abba", "ab*ba", True),
        ("axbyc", "a*b*c", True),
        ("acb", "a*b*c", False),
        ("abcabc", "*abc", True),
        ("*", r"\*", True),
        ("a", r"\*", False),
        ("...", r"\...", True),
        ("a", r"\...", False),
        ("\\", r"\\", True),
        ("a\\b", r"a\\b", True),
        ("a.b", "a.b", True),
        ("axb", "a.b", False),
    ],
)
def test_words_fit_or_do_not(words: str, wanted: str, answer: bool) -> None:
    assert fits(pattern(words), pattern(wanted)) is answer


def test_a_word_of_no_characters_is_a_word() -> None:
    assert fits([b""], [b""])
    assert fits([b""], [b"*"])
    assert not fits([], [b""])
    assert not fits([], [b"*"])


def test_a_line_is_no_end() -> None:
    assert fits([b"a\nb"], [b"a*b"])
    assert not fits([b"a\nb"], [b"a"])


def test_bytes_that_are_no_text_fit() -> None:
    assert fits([b"\xff\xfe"], [b"\xff*"])


@given(WORDS)
def test_what_is_escaped_fits_itself_alone(words: list[bytes]) -> None:
    escaped = [escape(word) for word in words]
    assert not any(map(word_problem, escaped))
    assert fits(words, escaped)
    assert not fits([*words, b"a"], escaped)
    assert not fits([word + b"a" for word in words] or [b"a"], escaped)


@given(st.text("ab*", max_size=8), st.text("ab", max_size=10))
def test_it_is_what_a_regular_expression_would_say(wanted: str, word: str) -> None:
    expected = re.fullmatch(wanted.replace("*", ".*"), word, re.DOTALL) is not None
    assert fits([word.encode()], [wanted.encode()]) is expected


def test_many_asterisks_take_no_time() -> None:
    """Where one goes back for each of them, this is not over in this universe's time."""
    began = time.process_time()
    assert not fits([b"a" * 100_000], [b"*a" * 2_000 + b"*b"])
    assert fits([b"a" * 100_000], [b"*a" * 2_000 + b"*"])
    assert time.process_time() - began < 5


@pytest.mark.parametrize(("word", "problem"), [(b"a\0", "NUL"), (rb"\d", "before something else"), (b"\\", "before")])
def test_what_is_no_pattern_says_why(word: bytes, problem: str) -> None:
    assert problem in word_problem(word)


@pytest.mark.parametrize("word", [b"", b"*", rb"\*\\\.", b"...", b"a.b"])
def test_what_is_one_says_nothing(word: bytes) -> None:
    assert word_problem(word) == ""
