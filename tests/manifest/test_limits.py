"""A run may tighten its manifest's limits, and nothing else."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immured.errors import Refused
from immured.manifest.builtin import default_manifest, parse_map
from immured.manifest.limits import _decimal, tighten


def test_a_tighter_limit_takes_the_place_of_the_manifests() -> None:
    assert tighten(default_manifest(), {"memory": "64M"}).limits.memory == 64 << 20


def test_what_is_not_named_stays() -> None:
    assert tighten(default_manifest(), {"memory": "64M"}).limits.pids == default_manifest().limits.pids


def test_a_limit_where_the_manifest_has_none_is_tighter() -> None:
    assert tighten(default_manifest(), {"cpu_time": "1s"}).limits.cpu_time == 10**9


def test_the_digest_stays_the_manifests() -> None:
    assert tighten(default_manifest(), {"pids": 3}).digest == default_manifest().digest


def test_strictness_can_be_asked_for() -> None:
    assert tighten(default_manifest(), {"strict": True}).limits.strict


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"memory": "1G"}, "limits.memory is 1G, more than the manifest's 512M"),
        ({"wall": "2m"}, "limits.wall is 2m, more than the manifest's 1m"),
        ({"wall": "none"}, "limits.wall is none, more than the manifest's 1m"),
        ({"pids": 129}, "limits.pids is 129, more than the manifest's 128"),
        ({"memory": "x"}, "limits.memory is 'x'; write bytes, or a whole number with K, M, G or T (powers of 1024)"),
        ([], "limits is an array, not a map"),
    ],
)
def test_what_is_wider_or_not_understood_is_refused(limits: Any, message: str) -> None:
    with pytest.raises(Refused) as refused:
        tighten(default_manifest(), limits)
    assert (refused.value.code, refused.value.message) == ("bad_argument", message)


@pytest.mark.parametrize(
    ("limits", "remedy"),
    [
        ({"memory": "10"}, "did you mean '10M'?"),
        ({"memory": 10}, "did you mean '10M'?"),
        ({"disk": "64"}, "did you mean '64M'?"),
        ({"memory": "0"}, ""),
        ({"memory": "512K"}, ""),
        ({"memory": "9" * 19 + "T"}, ""),
        ({"memory": "9" * 19}, ""),
        ({"pids": "0"}, ""),
    ],
)
def test_who_left_the_unit_away_is_asked_whether_he_meant_one(limits: Any, remedy: str) -> None:
    with pytest.raises(Refused) as refused:
        tighten(default_manifest(), limits)
    assert "it may be" in refused.value.message
    assert refused.value.remedy == remedy


def test_a_name_that_is_no_limits_is_an_unknown_field() -> None:
    with pytest.raises(Refused) as refused:
        tighten(default_manifest(), {"memroy": 1})
    assert (refused.value.code, refused.value.remedy) == ("unknown_field", "did you mean 'memory'?")


def test_a_strict_manifest_stays_strict() -> None:
    strict = parse_map({"schema": 1, "limits": {"strict": True}})
    with pytest.raises(Refused, match=r"limits\.strict is false"):
        tighten(strict, {"strict": False})


@settings(deadline=None)
@given(st.integers(1 << 20, 1 << 31), st.integers(1, 300))
def test_no_answer_is_ever_wider(memory: int, pids: int) -> None:
    default = default_manifest()
    try:
        limits = tighten(default, {"memory": memory, "pids": pids}).limits
    except Refused:
        assert memory > default.limits.memory or pids > default.limits.pids
    else:
        assert limits.memory <= default.limits.memory
        assert limits.pids <= default.limits.pids


CORES = {"schema": 1, "limits": {"cores": "0-3", "pin": 2}}


@pytest.mark.parametrize(("asked", "kept"), [("0-3", 0b1111), ("1,3", 0b1010), ("2", 0b100)])
def test_processors_may_be_fewer_of_the_manifests(asked: str, kept: int) -> None:
    assert tighten(parse_map(CORES), {"cores": asked}).limits.cores == kept


def test_processors_may_be_named_where_the_manifest_names_none() -> None:
    assert tighten(default_manifest(), {"cores": "5"}).limits.cores == 1 << 5


def test_fewer_processors_may_be_had_alone() -> None:
    assert tighten(parse_map(CORES), {"pin": 1}).limits.pin == 1


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"cores": "3-4"}, "limits.cores is 3-4, more than the manifest's 0-3"),
        ({"cores": "none"}, "limits.cores is none, more than the manifest's 0-3"),
        ({"pin": 3}, "limits.pin is 3, more than the manifest's 2"),
        ({"pin": "none"}, "limits.pin is none, more than the manifest's 2"),
    ],
)
def test_other_processors_are_refused(limits: Any, message: str) -> None:
    with pytest.raises(Refused) as refused:
        tighten(parse_map(CORES), limits)
    assert (refused.value.code, refused.value.message) == ("bad_argument", message)


def test_processors_of_ones_own_are_the_manifests_to_give() -> None:
    with pytest.raises(Refused) as refused:
        tighten(default_manifest(), {"pin": 1})
    assert (refused.value.code, refused.value.details) == ("bad_argument", {"field": "limits.pin"})


@pytest.mark.parametrize("cores", [0, 1, "", "a", "1-", "-1", "1-0", "0,0", "2,1", "0-2,2", "0, 1", "1024", "0x1", "٣"])
def test_what_is_no_ascending_list_of_processors_is_refused(cores: object) -> None:
    with pytest.raises(Refused) as refused:
        parse_map({"schema": 1, "limits": {"cores": cores}})
    assert (refused.value.code, refused.value.details["field"]) == ("manifest_invalid", "manifest.limits.cores")


@given(st.floats())
def test_a_number_is_named_as_it_would_be_written_out(value: float) -> None:
    written = str(value)
    if math.isfinite(value):
        written = format(Decimal(repr(value)), "f").removesuffix(".0")
    assert _decimal(value) == written
