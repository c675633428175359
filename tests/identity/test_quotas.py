"""What a tenant may have: counted, refused with the moment to retry, given back; and a model that counts one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immured.errors import Refused
from immured.identity.quotas import Lease, Quota, Quotas, Wants

MINUTE = 60_000
SECOND_NS = 10**9
RUN = Wants(runs=1, sandboxes=1, cpus=1000, memory=512 << 20, pids=128, disk=512 << 20, wall=60 * SECOND_NS)


def quotas(quota: Quota | None, processors: int = 4) -> Quotas:
    return Quotas({"acme": quota}.get, processors=processors)


def refusal(ask: Callable[[], object]) -> Refused:
    with pytest.raises(Refused) as refused:
        ask()
    assert refused.value.code == "over_quota"
    assert refused.value.retry
    return refused.value


def test_a_tenant_without_a_quota_has_none() -> None:
    held = quotas(None)
    leases = [held.admit("acme", RUN, 0) for _ in range(1000)]
    assert held.used("acme", 0)["sandboxes"] == len(leases)


@pytest.mark.parametrize(
    ("quota", "name", "limit", "asked"),
    [
        (Quota(sandboxes=2), "sandboxes", 2, 1),
        (Quota(cpus=2500), "cpus", 2500, 1000),
        (Quota(memory=1 << 30), "memory", 1 << 30, 512 << 20),
        (Quota(pids=300), "pids", 300, 128),
        (Quota(disk=1 << 30), "disk", 1 << 30, 512 << 20),
    ],
)
def test_what_lives_is_held_until_it_is_over(quota: Quota, name: str, limit: int, asked: int) -> None:
    held = quotas(quota)
    leases = [held.admit("acme", RUN, 0) for _ in range(2)]
    error = refusal(lambda: held.admit("acme", RUN, 1000))
    assert error.details == {
        "tenant": "acme",
        "quota": name,
        "limit": limit,
        "used": 2 * asked,
        "asked": asked,
        "retry_ms": 59_000,  # by then the first has reached its wall time, whatever it does
    }
    leases[0].release()
    leases[0].release()  # twice is once
    held.admit("acme", RUN, 1000)
    refusal(lambda: held.admit("acme", RUN, 1000))


def test_nothing_is_taken_of_what_is_refused() -> None:
    held = quotas(Quota(sandboxes=5, runs_per_minute=100, memory=512 << 20))
    lease = held.admit("acme", RUN, 0)
    before = held.used("acme", 0)
    refusal(lambda: held.admit("acme", RUN, 0))
    assert held.used("acme", 0) == before
    lease.release()
    assert held.used("acme", MINUTE + 2000) == dict.fromkeys(before, 0)


def test_a_tenants_runs_are_not_anothers() -> None:
    held = Quotas({"acme": Quota(sandboxes=1), "else": Quota(sandboxes=1)}.get, processors=1)
    held.admit("acme", RUN, 0)
    held.admit("else", RUN, 0)
    refusal(lambda: held.admit("acme", RUN, 0))


@pytest.mark.parametrize(
    ("quota", "wants", "name"),
    [
        (Quota(memory=1 << 20), RUN, "memory"),
        (Quota(runs_per_minute=2), Wants(runs=3), "runs_per_minute"),
        (Quota(wall=SECOND_NS), RUN, "wall"),
        (Quota(wall=SECOND_NS), Wants(wall=None), "wall"),
        (Quota(disk=1 << 40), Wants(sandboxes=1, disk=None), "disk"),
        (Quota(cpus=3999), Wants(sandboxes=1, cpus=None), "cpus"),
        (Quota(sandboxes=0), RUN, "sandboxes"),
    ],
)
def test_what_can_never_fit_names_no_moment(quota: Quota, wants: Wants, name: str) -> None:
    error = refusal(lambda: quotas(quota).admit("acme", wants, 0))
    assert error.details["quota"] == name
    assert "retry_ms" not in error.details
    assert error.remedy


def test_a_run_without_a_bound_of_processors_counts_as_all_of_them() -> None:
    held = quotas(Quota(cpus=8000), processors=4)
    for _ in range(2):
        held.admit("acme", Wants(sandboxes=1, cpus=None), 0)
    assert refusal(lambda: held.admit("acme", Wants(sandboxes=1, cpus=1), 0)).details["used"] == 8000


def test_nobody_knows_when_what_has_no_end_is_over() -> None:
    held = quotas(Quota(sandboxes=1))
    held.admit("acme", Wants(sandboxes=1, wall=None), 0)
    assert "retry_ms" not in refusal(lambda: held.admit("acme", RUN, 0)).details


def test_an_end_that_moves_moves_the_moment() -> None:
    held = quotas(Quota(sandboxes=1))
    lease = held.admit("acme", RUN, 0)
    lease.until = 90_000
    assert refusal(lambda: held.admit("acme", RUN, 0)).details["retry_ms"] == 90_000


def test_what_is_there_at_the_start_is_held_whatever_the_quota_says() -> None:
    held = quotas(Quota(sandboxes=1))
    leases = [held.hold("acme", RUN, 0) for _ in range(3)]
    assert refusal(lambda: held.admit("acme", RUN, 0)).details["used"] == 3
    for lease in leases:
        lease.release()
    held.admit("acme", RUN, 0)


def test_a_quota_that_shrinks_ends_nothing_and_admits_nothing() -> None:
    shares = {"acme": Quota(sandboxes=3)}
    held = Quotas(shares.get, processors=1)
    leases = [held.admit("acme", RUN, 0) for _ in range(3)]
    shares["acme"] = Quota(sandboxes=1)
    leases[0].release()
    assert refusal(lambda: held.admit("acme", RUN, 0)).details["used"] == 2


def test_the_moment_to_retry_is_right_for_runs_a_minute() -> None:
    held = quotas(Quota(runs_per_minute=10))
    for second in range(10):
        held.admit("acme", Wants(runs=1), 1000 * second)
    error = refusal(lambda: held.admit("acme", Wants(runs=3), 9500))
    retry = error.details["retry_ms"]
    assert isinstance(retry, int)
    refusal(lambda: held.admit("acme", Wants(runs=3), 9500 + retry - 1))
    held.admit("acme", Wants(runs=3), 9500 + retry)


def test_many_at_once_count_as_the_largest_that_can_live_together() -> None:
    each = [Wants(1, 1, 500, memory, 10, 100, wall) for memory, wall in ((1, 5), (7, 1), (3, 9))]
    assert Wants.together(each, 2) == Wants(3, 2, 1000, 10, 20, 200, 9)
    assert Wants.together([*each, Wants(1, 1, None, 0, 0, None, None)], 2) == Wants(4, 2, None, 10, 20, None, None)
    assert Wants.together([], 2) == Wants()


def test_what_idle_tenants_had_is_forgotten() -> None:
    held = quotas(None)
    for number in range(1000):
        held.admit(f"t{number}", RUN, 0).release()
    held.admit("acme", RUN, 2 * MINUTE)
    assert len(held._tenants) == 1


Asked = st.tuples(
    st.integers(0, 30_000),  # so much later
    st.booleans(),  # something ends first
    st.builds(Wants, runs=st.integers(0, 3), sandboxes=st.integers(0, 2), memory=st.integers(0, 5)),
)


@given(st.lists(Asked, max_size=60))
def test_no_minute_and_no_moment_has_more_than_the_quota(asked: list[tuple[int, bool, Wants]]) -> None:
    quota = Quota(sandboxes=4, runs_per_minute=5, memory=9)
    held, now = quotas(quota), 0
    begun: list[tuple[int, int]] = []
    living: list[tuple[Lease, Wants]] = []

    def total(name: str) -> int:
        return sum(getattr(wants, name) for _, wants in living)

    def in_the_minute(lenient: int) -> int:
        """Within 60 seconds; `lenient`: and the second that they may be counted longer."""
        return sum(runs for at, runs in begun if at > now - MINUTE - lenient)

    for later, ends, wants in asked:
        now += later
        if ends and living:
            living.pop(0)[0].release()
        fits: dict[str, Any] = {
            "sandboxes": not wants.sandboxes or total("sandboxes") + wants.sandboxes <= 4,
            "memory": not wants.memory or total("memory") + wants.memory <= 9,
        }
        try:
            lease = held.admit("acme", wants, now)
        except Refused as error:
            name = str(error.details["quota"])
            was_right = in_the_minute(1000) + wants.runs > 5 if name == "runs_per_minute" else not fits[name]
            assert was_right, error  # noqa: PT017 - some of them are refused
            continue
        living.append((lease, wants))
        begun.append((now, wants.runs))
        assert all(fits.values())
        assert not wants.runs or in_the_minute(0) <= 5
        used = held.used("acme", now)
        assert (used["sandboxes"], used["memory"]) == (total("sandboxes"), total("memory"))
