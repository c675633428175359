"""Each limit's means: the controller's where there is one, a weaker one by name where there is none, or a refusal."""

from __future__ import annotations

import resource
from dataclasses import replace
from typing import Any

import pytest

from immured.errors import Refused
from immured.host.facts import HostFacts
from immured.isolation.abi import AffinityFlag
from immured.isolation.means import WEAKER, Means, means_of
from immured.manifest.builtin import parse_map

BARE = HostFacts(cpus=4, cores=0b1111)
FULL = replace(BARE, controllers=frozenset({"cpu", "memory", "pids", "io", "kill"}), cgroup="/sys/fs/cgroup/x")
HYBRID = replace(BARE, controllers=frozenset({"kill"}), cgroup="/sys/fs/cgroup/unified/x")


def means(facts: HostFacts, *, binds: bool = False, passed: frozenset[int] = frozenset(), **limits: Any) -> Means:
    return means_of(parse_map({"schema": 1, "limits": limits}).limits, facts, binds_writable=binds, passed=passed)


def rlimit(found: Means, which: int) -> int | None:
    return next((step.numbers[2] for step in found.rlimits if step.numbers[0] == which), None)


@pytest.mark.parametrize(
    ("facts", "limit", "value", "expected"),
    [
        (FULL, "memory", "64M", "cgroup memory.max"),
        (HYBRID, "memory", "64M", "rlimit_as+rlimit_data (per process)"),
        (FULL, "pids", 8, "cgroup pids.max"),
        (HYBRID, "pids", 8, "rlimit_nproc (per run uid)"),
        (FULL, "cpus", "0.5", "cgroup cpu.max"),
        (HYBRID, "cpus", "0.5", "affinity (whole cpus)"),
        (FULL, "cpu_time", "1s", "cpu.stat watch"),
        (HYBRID, "cpu_time", "1s", "cpu.stat watch"),
        (BARE, "cpu_time", "1s", "rlimit_cpu (per process)"),
        (HYBRID, "wall", "1s", "launcher timer"),
        (HYBRID, "files", 64, "rlimit_nofile"),
        (HYBRID, "disk", "8M", "tmpfs size"),
        (HYBRID, "output", "1M", "daemon"),
        (FULL, "io", "1M", "cgroup io.max"),
    ],
)
def test_a_limit_has_its_means(facts: HostFacts, limit: str, value: object, expected: str) -> None:
    limits: dict[str, Any] = {limit: value}
    assert means(facts, **limits).enforcement[limit] == expected


def test_what_is_not_limited_has_no_means() -> None:
    found = means(FULL, wall="none", disk="none")
    assert set(found.enforcement) == {"memory", "pids", "files"}


def test_the_controllers_get_their_figures() -> None:
    found = means(FULL, memory="64M", pids=8, cpus="1.5", io="1M")
    assert found.cgroup == (64 << 20, 8, 150_000, 100_000, 1 << 20, 0)


def test_swap_is_held_beside_memory() -> None:
    swapping = replace(FULL, swap=True)
    assert means(swapping, swap="16M").cgroup[5] == 16 << 20
    for asked in ({"swap": "16M"}, {"swap": 0}, {}):
        assert means(swapping, **asked).enforcement["swap"] == "cgroup memory.swap.max"


@pytest.mark.parametrize("facts", [FULL, HYBRID, replace(HYBRID, swap=True)])
def test_swap_that_nothing_holds_is_refused_and_none_promised(facts: HostFacts) -> None:
    with pytest.raises(Refused) as refusal:
        means(facts, swap="1M")
    assert (refusal.value.code, refusal.value.details) == ("unsupported_limit", {"field": "limits.swap"})
    assert "swap" not in means(facts).enforcement


def test_without_controllers_the_cgroup_gets_none() -> None:
    assert means(HYBRID, memory="64M", pids=8, cpus="1.5").cgroup == (0, 0, 0, 0, 0, 0)


def test_without_the_memory_controller_each_process_is_bounded() -> None:
    found = means(HYBRID, memory="64M")
    assert rlimit(found, resource.RLIMIT_DATA) == 64 << 20


def test_address_space_may_be_reserved_beyond_what_may_be_written() -> None:
    assert rlimit(means(HYBRID, memory="64M"), resource.RLIMIT_AS) == (64 << 20) + (2 << 30)


def test_with_the_memory_controller_address_space_is_free() -> None:
    assert rlimit(means(FULL, memory="64M"), resource.RLIMIT_AS) is None


def test_without_the_pids_controller_the_runs_uid_is_bounded() -> None:
    assert rlimit(means(HYBRID, pids=8), resource.RLIMIT_NPROC) == 8


def test_with_the_pids_controller_it_is_the_first_wall() -> None:
    assert (rlimit(means(FULL, pids=8), resource.RLIMIT_NPROC) or 0) > 8


def test_a_run_is_killed_on_its_pids_limit_only_where_that_is_measured() -> None:
    assert (means(FULL).deadlines.numbers[2], means(HYBRID).deadlines.numbers[2]) == (1, 0)


@pytest.mark.parametrize(("cpus", "whole"), [("0.5", 1), ("1", 1), ("1.5", 2), ("64", 4)])
def test_affinity_rounds_up_to_cpus_that_there_are(cpus: str, whole: int) -> None:
    affinity = means(HYBRID, cpus=cpus).affinity
    assert affinity is not None
    assert (affinity.numbers, affinity.strings) == ((whole, 0), (b"",))


def test_affinity_holds_because_the_filter_keeps_it() -> None:
    assert "sched_setaffinity" in means(HYBRID, cpus="1").denied


def test_memory_that_no_limit_of_a_process_counts_is_not_to_be_had() -> None:
    assert means(HYBRID).denied == ("memfd_create",)


def test_a_controller_needs_no_help_of_the_filter() -> None:
    assert means(FULL, cpus="1").denied == ()


def test_the_cpu_limit_of_a_process_stands_behind_the_watch() -> None:
    assert rlimit(means(FULL, cpu_time="1500ms"), resource.RLIMIT_CPU) == 4


def test_deadlines_are_nanoseconds_and_zero_for_none() -> None:
    assert means(FULL, wall="none", cpu_time="1s").deadlines.numbers[:2] == (0, 10**9)


def test_a_writable_directory_bounds_disk_per_file_and_says_so() -> None:
    found = means(FULL, binds=True, disk="8M")
    assert found.enforcement["disk"] in WEAKER
    assert rlimit(found, resource.RLIMIT_FSIZE) == 8 << 20


@pytest.mark.parametrize("facts", [HYBRID, BARE])
def test_io_without_its_controller_is_refused(facts: HostFacts) -> None:
    with pytest.raises(Refused) as refused:
        means(facts, io="1M")
    assert refused.value.code == "unsupported_limit"


@pytest.mark.parametrize("passed", [{1}, {0, 2}])
def test_an_output_limit_on_passed_descriptors_is_refused(passed: set[int]) -> None:
    with pytest.raises(Refused) as refused:
        means(FULL, passed=frozenset(passed), output="1M")
    assert refused.value.code == "unsupported_limit"


def test_passing_stdin_alone_leaves_output_bounded() -> None:
    assert means(FULL, passed=frozenset({0}), output="1M").enforcement["output"] == "daemon"


def test_strict_refuses_every_weaker_means_and_lists_each() -> None:
    with pytest.raises(Refused) as refused:
        means(HYBRID, strict=True, cpus="1")
    assert refused.value.code == "weaker_enforcement"
    assert refused.value.details["weaker"] == {
        "memory": "rlimit_as+rlimit_data (per process)",
        "pids": "rlimit_nproc (per run uid)",
        "cpus": "affinity (whole cpus)",
    }
    assert "memory by rlimit_as+rlimit_data (per process)" in refused.value.message


def test_strict_is_satisfied_where_every_means_is_full() -> None:
    assert not set(means(FULL, strict=True, cpus="1", cpu_time="1s", io="1M").enforcement.values()) & WEAKER


def test_no_run_dumps_core_or_gains_priority() -> None:
    found = means(FULL)
    assert [rlimit(found, which) for which in (resource.RLIMIT_CORE, resource.RLIMIT_NICE, resource.RLIMIT_RTPRIO)] == [
        1,
        0,
        0,
    ]


CPUSET = replace(FULL, controllers=FULL.controllers | {"cpuset"})


@pytest.mark.parametrize("facts", [HYBRID, FULL])
def test_processors_are_kept_by_affinity_and_the_filter(facts: HostFacts) -> None:
    found = means(facts, cores="1-2", pin=1)
    assert found.affinity is not None
    assert (found.affinity.numbers, found.affinity.strings) == ((1, AffinityFlag.EXCLUSIVE), (b"1-2",))
    assert found.enforcement["cores"] == found.enforcement["pin"] == "affinity, kept by the filter"
    assert "sched_setaffinity" in found.denied


def test_processors_are_kept_by_the_controller_where_it_is_ours() -> None:
    found = means(CPUSET, cores="1-2", pin=1)
    assert found.affinity is not None
    assert found.affinity.numbers == (1, AffinityFlag.EXCLUSIVE | AffinityFlag.CPUSET)
    assert found.enforcement["cores"] == found.enforcement["pin"] == "cgroup cpuset.cpus"
    assert found.denied == ()


def test_the_controller_of_processors_is_left_alone_until_somebody_asks() -> None:
    assert means(CPUSET, cpus="1").affinity is None


def test_named_processors_are_all_to_be_had_and_shared() -> None:
    affinity = means(HYBRID, cores="0,3").affinity
    assert affinity is not None
    assert (affinity.numbers, affinity.strings) == ((0, 0), (b"0,3",))


def test_a_share_of_processors_is_taken_out_of_those_that_are_named() -> None:
    affinity = means(HYBRID, cores="1-3", cpus="1.5").affinity
    assert affinity is not None
    assert (affinity.numbers, affinity.strings) == ((2, 0), (b"1-3",))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"cores": "3-5"}, "limits.cores names 4-5; the daemon may use 0-3"),
        ({"pin": 5}, "limits.pin is 5; a run may use 4: 0-3"),
        ({"cores": "0-1", "pin": 3}, "limits.pin is 3; a run may use 2: 0-1"),
        ({"cpus": "1.5", "pin": 3}, "limits.pin is 3; without the cpu controller limits.cpus allows 2"),
    ],
)
def test_processors_that_are_not_to_be_had_are_refused(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused) as refused:
        means(HYBRID, **limits)
    assert (refused.value.code, refused.value.message) == ("unsupported_limit", message)


def test_processors_are_held_by_full_means_everywhere() -> None:
    found = means(HYBRID, cores="0", pin=1)
    assert not {found.enforcement["cores"], found.enforcement["pin"]} & WEAKER
