"""How fast commands may come: the moment to retry is right, nothing is counted that was refused, and nobody is many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immured.errors import Refused
from immured.identity.rates import Buckets, Rate, RateLimits, Rates

KEY = "ed25519:" + "0" * 32


def refused(limits: RateLimits, now: int, key: str = KEY, uid: int = 1, tenant: str = "default") -> Refused | None:
    try:
        limits.check(key, uid, tenant, now)
    except Refused as error:
        return error
    return None


def test_without_a_rate_everything_passes() -> None:
    limits = RateLimits(Rates)
    assert not any(refused(limits, 0) for _ in range(10_000))


@pytest.mark.parametrize(
    ("rates", "of"),
    [
        (Rates(key=Rate(10, 20)), "key"),
        (Rates(uid=Rate(10, 20)), "uid"),
        (Rates(tenant=Rate(10, 20)), "tenant"),
    ],
)
def test_a_burst_then_so_many_a_second(rates: Rates, of: str) -> None:
    limits = RateLimits(lambda: rates)
    assert [refused(limits, 0) for _ in range(20)] == [None] * 20
    error = refused(limits, 0)
    assert error is not None
    assert error.code == "rate_limited"
    assert error.retry
    assert error.details == {"of": of, "per_second": 10, "burst": 20, "retry_ms": 100}
    assert refused(limits, 99) is not None
    assert refused(limits, 100) is None
    assert refused(limits, 100) is not None
    assert sum(refused(limits, now) is None for now in range(1100, 6100)) == 10 + 49


def test_each_has_a_bucket_of_its_own() -> None:
    limits = RateLimits(lambda: Rates(key=Rate(1, 1), uid=Rate(1, 2)))
    assert refused(limits, 0, "a", 1) is None
    assert refused(limits, 0, "b", 1) is None
    error = refused(limits, 0, "c", 1)
    assert error is not None
    assert error.details["of"] == "uid"
    assert refused(limits, 0, "c", 2) is None  # what was refused had not counted against the key


def test_a_changed_policy_counts_from_then_on() -> None:
    rates = [Rates(key=Rate(1, 1))]
    limits = RateLimits(lambda: rates[0])
    assert refused(limits, 0) is None
    assert refused(limits, 0) is not None
    rates[0] = Rates(key=Rate(1000, 100))
    assert refused(limits, 1) is None


def test_buckets_that_are_full_again_are_forgotten() -> None:
    buckets, rate = Buckets(), Rate(1, 5)
    for number in range(100_000):
        buckets.take(number, rate, number)  # a thousand a second, full again after one
    assert len(buckets) < 5000


def test_nothing_is_owed_and_nobody_gets_back_more_than_a_burst() -> None:
    buckets, rate = Buckets(), Rate(10, 3)
    for _ in range(1000):
        buckets.take("x", rate, 0, 10)
    assert buckets.wait("x", rate, 0) == 100
    buckets.take("x", rate, 0, -1_000_000)
    waits = list[int]()
    for _ in range(4):
        waits.append(buckets.wait("x", rate, 0))
        buckets.take("x", rate, 0)
    assert waits == [0, 0, 0, 100]


@given(
    st.integers(1, 50),
    st.integers(1, 20),
    st.lists(st.integers(0, 400), max_size=200),
)
def test_no_stretch_of_time_has_more_than_it_may(per_second: int, burst: int, pauses: list[int]) -> None:
    limits = RateLimits(lambda: Rates(key=Rate(per_second, burst)))
    now, passed = 0, list[int]()
    for pause in pauses:
        now += pause
        error = refused(limits, now)
        if error is None:
            passed.append(now)
            for count, since in enumerate(reversed(passed), 1):
                assert 1000 * (count - burst) <= (now - since) * per_second
        else:
            wait = error.details["retry_ms"]
            assert isinstance(wait, int)
            assert wait > 0
