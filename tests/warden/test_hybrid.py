"""A host without controllers, or without cgroup v2: what cannot be held is refused, and the end is still the end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from immured.isolation.abi import Cause, Controller, Measured, Stage
from tests.warden.cell import Cell, Wish, python
from tests.warden.test_run import DAEMON


@pytest.fixture
def bare(cells: Callable[..., Cell]) -> Cell:
    """A cell on a host with no cgroup v2 at all."""
    return cells(cgroup=None, controllers=Controller(0))


@pytest.mark.parametrize("limit", ["memory", "pids", "quota_us", "io_bps"])
def test_a_limit_that_nothing_can_hold_is_refused(bare: Cell, limit: str) -> None:
    assert bare.refused(Wish(["true"], **{limit: 10_000})).stage is Stage.CGROUP  # type: ignore[arg-type]


def test_a_run_past_its_time_ends(bare: Cell) -> None:
    assert bare.run(Wish(["sleep", "100"], wall_s=0.2)).outcome.cause is Cause.TIMEOUT


def test_what_the_main_process_leaves_behind_dies_and_is_told(bare: Cell) -> None:
    assert bare.run(Wish(python(DAEMON))).outcome.stragglers == 1


def test_a_run_that_leaves_nothing_behind_has_no_stragglers(bare: Cell) -> None:
    assert bare.run(Wish(["true"])).outcome.stragglers == 0


def test_cpu_time_of_the_tree_is_not_claimed(bare: Cell) -> None:
    assert Measured.CPU not in bare.run(Wish(["true"])).outcome.measured
