"""Statistics of samples."""

from __future__ import annotations

import pytest

from bench.figures import difference, percentile, ratio_of_medians, spread, trimmed


@pytest.mark.parametrize(("percent", "value"), [(1, 1), (10, 1), (50, 5), (90, 9), (91, 10), (100, 10)])
def test_a_percentile_is_the_nearest_rank(percent: float, value: int) -> None:
    assert percentile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], percent) == value


def test_one_sample_is_every_percentile() -> None:
    assert {percentile([3.5], percent) for percent in (1, 50, 99)} == {3.5}


@pytest.mark.parametrize(("samples", "percent"), [([], 50), ([1.0], 0), ([1.0], 101)])
def test_no_percentile_of_nothing(samples: list[float], percent: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile(samples, percent)


def test_a_ratio_is_of_medians() -> None:
    assert ratio_of_medians([1, 2, 900], [4, 4, 4]) == 0.5


def test_trimming_takes_as_many_from_both_ends() -> None:
    assert trimmed(list(range(20)), 0.1) == list(range(2, 18))


@pytest.mark.parametrize("samples", [[1.0], [2.0, 1.0], [3.0, 2.0, 1.0]])
def test_trimming_leaves_something(samples: list[float]) -> None:
    assert trimmed(samples, 0.5)


def test_the_spread_is_relative() -> None:
    assert spread([90, 110]) == pytest.approx(0.1)
    assert spread([900, 1100]) == pytest.approx(0.1)
    assert spread([7, 7, 7]) == 0


def test_a_difference_is_of_pairs() -> None:
    # The machine was slow for the last pair; both of it were.
    assert difference([12, 13, 102], [10, 11, 100]) == 2


def test_pairs_must_be_pairs() -> None:
    with pytest.raises(ValueError, match="shorter"):
        difference([1, 2], [1])
