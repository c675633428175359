"""A minute of mixed load: nothing fails, and nothing grows."""

from __future__ import annotations

import dataclasses

import pytest

from tests.soak.__main__ import MEMORY_SLACK_KIB, grown, soak
from tests.soak.figures import Held
from tests.soak.load import ACTS

HELD_KIB = 24 << 10
"""Replies are held for two minutes, 16 MiB of them at most and what lies around them: still filling after one."""
REST = Held(memory=40_000, descriptors=300, threads=12, processes=20, cgroups=3, mounts=20, disk=100_000)


@pytest.mark.needs_root
@pytest.mark.slow
def test_a_minute_of_everything_leaves_nothing_behind() -> None:
    looks, load = soak(rounds=6, seconds=60, rest=3)
    assert not load.failures
    assert not grown(looks, HELD_KIB)
    assert min(load.acts[act.__name__] for act in ACTS) >= 3, f"there was hardly any load: {load.acts}"


@pytest.mark.parametrize(
    ("name", "more"), [("memory", MEMORY_SLACK_KIB), ("descriptors", 8), ("cgroups", 4), ("disk", 65_536)]
)
def test_what_grows_is_found(name: str, more: int) -> None:
    later = dataclasses.replace(REST, **{name: getattr(REST, name) + more + 1})
    assert grown([REST] * 3 + [later] * 3) == [
        f"{name} grew: at most {getattr(REST, name)} early, at least {getattr(later, name)} late"
    ]


def test_what_only_moves_is_no_growth() -> None:
    up = dataclasses.replace(REST, memory=REST.memory + 50_000)
    assert not grown([up, REST, REST, REST, up, REST])
