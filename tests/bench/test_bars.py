"""What holds a bar and what does not."""

from __future__ import annotations

import pytest

from bench.bars import BARS, Bar, Shown, Verdict, good, number, table, verdict
from bench.suite import ROWS

LESS = Bar("less", "a time", 2.0, 1.0, "ms")
MORE = Bar("more", "a rate", 2.0, 4.0, "x", more=True)


@pytest.mark.parametrize(
    ("bar", "value", "found"),
    [
        (LESS, 0.5, Verdict.AIM),
        (LESS, 1.0, Verdict.AIM),
        (LESS, 1.001, Verdict.HOLDS),
        (LESS, 2.0, Verdict.HOLDS),
        (LESS, 2.001, Verdict.MISSED),
        (MORE, 1.999, Verdict.MISSED),
        (MORE, 2.0, Verdict.HOLDS),
        (MORE, 4.0, Verdict.AIM),
        (MORE, None, Verdict.NOT_SHOWN),
    ],
)
def test_a_verdict(bar: Bar, value: float | None, found: Verdict) -> None:
    assert verdict(Shown(bar.name, value, ""), bar) is found


def test_what_broke_is_not_what_cannot_be_shown() -> None:
    assert verdict(Shown("idle", None, "the daemon did not start", failed=True)) is Verdict.FAILED
    assert not good([Shown("idle", None, "the daemon did not start", failed=True)])


def test_only_a_missed_bar_is_bad() -> None:
    assert good([Shown("burst", 0.65, ""), Shown("dying", None, "no memory controller")])
    assert not good([Shown("burst", 0.65, ""), Shown("cpu", 1.51, "")])


def test_every_bar_has_a_row_and_every_row_its_bars() -> None:
    assert sorted(name for names, _ in ROWS for name in names) == sorted(BARS)


def test_every_aim_is_beyond_its_bar() -> None:
    assert all(bar.aim > bar.bar if bar.more else bar.aim < bar.bar for bar in BARS.values())


def test_the_table_says_what_was_not_shown() -> None:
    lines = table([Shown("cpu", 1.7, ""), Shown("burst", 0.5, ""), Shown("dying", None, "")]).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["burst", "cpu", "dying"]
    assert "| 0.50 x | <= 0.65 | 0.4 | holds |" in lines[2]
    assert "| 1.70 x | <= 1.5 | 1 | MISSED |" in lines[3]
    assert "| - | <= 2 | 0 | not shown |" in lines[4]


@pytest.mark.parametrize(
    ("value", "unit", "text"), [(0.123, "x", "0.12 x"), (45.67, "MiB", "45.7 MiB"), (1234.5, "KiB", "1234 KiB")]
)
def test_digits_that_mean_something(value: float, unit: str, text: str) -> None:
    assert number(value, unit) == text
