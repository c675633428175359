"""Sizes, durations and CPUs as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immured.manifest.units import (
    cores_of,
    cpus_of,
    duration_of,
    show_cores,
    show_cpus,
    show_duration,
    show_size,
    size_of,
)


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("4096", 4096), ("512M", 512 << 20), ("512MiB", 512 << 20), ("1T", 1 << 40)]
)
def test_a_size_is_in_bytes(text: str, size: int) -> None:
    assert size_of(text) == size


@pytest.mark.parametrize("text", ["", "M", "1MB", "1m", "-1", "1.5G", "1 M", "1iB", "\u0661", "9" * 20])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="powers of 1024"):
        size_of(text)


@pytest.mark.parametrize(
    ("text", "nanoseconds"), [("500ms", 500_000_000), ("60s", 60 * 10**9), ("1.5h", 5400 * 10**9), ("0.1us", 100)]
)
def test_a_duration_is_in_nanoseconds(text: str, nanoseconds: int) -> None:
    assert duration_of(text) == nanoseconds


def test_a_duration_is_exact_however_many_digits_it_has() -> None:
    assert duration_of("123456789012345678.123456789d") == 123456789012345678123456789 * 86_400_000_000_000 // 10**9


@pytest.mark.parametrize("text", ["", "60", "s", "1e3s", "-1s", "1 s", ".5s", "1min"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="with its unit"):
        duration_of(text)


@pytest.mark.parametrize(("text", "thousandths"), [("1", 1000), ("0.5", 500), ("1.25", 1250), ("2.001", 2001)])
def test_cpus_are_in_thousandths(text: str, thousandths: int) -> None:
    assert cpus_of(text) == thousandths


@pytest.mark.parametrize("text", ["", "nan", "inf", "1e3", "-1", "0.0001", "1."])
def test_what_is_no_number_of_cpus_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="number of CPUs"):
        cpus_of(text)


@settings(deadline=None)
@given(st.integers(0, 1 << 50))
def test_a_size_shown_is_the_size_read(size: int) -> None:
    assert size_of(show_size(size)) == size


@settings(deadline=None)
@given(st.integers(0, 10**15))
def test_a_duration_shown_is_the_duration_read(nanoseconds: int) -> None:
    assert duration_of(show_duration(nanoseconds)) == nanoseconds


@settings(deadline=None)
@given(st.integers(10, 4_096_000))
def test_cpus_shown_are_the_cpus_read(thousandths: int) -> None:
    assert cpus_of(show_cpus(thousandths)) == thousandths


@pytest.mark.parametrize(
    ("text", "mask", "shown"),
    [("0", 1, "0"), ("0-1", 3, "0-1"), ("0,1,2", 7, "0-2"), ("1,3-5,1023", 1 << 1023 | 0b111010, "1,3-5,1023")],
)
def test_processors_are_a_list_of_numbers_and_ranges(text: str, mask: int, shown: str) -> None:
    assert (cores_of(text), show_cores(mask)) == (mask, shown)


@given(st.sets(st.integers(0, 1023), min_size=1))
def test_a_list_of_processors_reads_as_it_is_shown(numbers: set[int]) -> None:
    mask = sum(1 << number for number in numbers)
    assert cores_of(show_cores(mask)) == mask
