"""Limits that a cgroup holds, and what it measures."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from immured.isolation.abi import Cause, Controller, Measured, Message
from tests.warden.cell import Cell, Pipes, Wish, python

pytestmark = pytest.mark.needs_cgroup2

MIB = 1 << 20


def test_a_memory_hog_dies_of_it(cell: Cell) -> None:
    outcome = cell.run(Wish(python("x = b'x' * (200 << 20)"), memory=64 * MIB)).outcome
    assert (outcome.cause, outcome.si_status) == (Cause.OOM, signal.SIGKILL)
    assert outcome.oom_kills >= 1


def test_a_hog_among_its_children_takes_the_whole_run_along(cell: Cell) -> None:
    program = "import os\nif os.fork() == 0:\n  x = b'x' * (200 << 20)\nos.wait()\nprint('still here')"
    run = cell.run(Wish(python(program), memory=64 * MIB))
    assert (run.outcome.cause, run.stdout) == (Cause.OOM, b"")


def test_files_in_tmp_count_as_memory(cell: Cell) -> None:
    outcome = cell.run(Wish(["sh", "-c", "head -c 200M /dev/zero > /tmp/x"], memory=64 * MIB)).outcome
    assert outcome.cause is not Cause.EXITED or outcome.si_status != 0


def test_a_kill_of_its_own_is_not_taken_for_memory(cell: Cell) -> None:
    outcome = cell.run(Wish(["sh", "-c", "kill -KILL $$"], memory=64 * MIB)).outcome
    assert outcome.cause is Cause.SIGNALED


def test_the_peak_of_memory_is_measured(cell: Cell) -> None:
    outcome = cell.run(Wish(python("x = b'x' * (40 << 20)"), memory=512 * MIB)).outcome
    assert Measured.MEMORY in outcome.measured
    assert outcome.memory_peak >= 40 * MIB


BOMB = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass"


def test_a_fork_bomb_ends_the_run_where_the_plan_says_so(cell: Cell) -> None:
    outcome = cell.run(Wish(python(BOMB), pids=32, kill_on_pids=True)).outcome
    assert outcome.cause is Cause.PIDS
    assert outcome.pids_max_events >= 1


def test_a_fork_bomb_that_ends_by_itself_met_the_limit_first(cell: Cell) -> None:
    program = "import os, time\ntry:\n  while True:\n    if os.fork() == 0: time.sleep(1000)\nexcept OSError: pass"
    assert cell.run(Wish(python(program), pids=16, kill_on_pids=True)).outcome.cause is Cause.PIDS


def test_a_fork_bomb_is_only_held_where_the_plan_says_so(cell: Cell) -> None:
    program = """
import os, time
made = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(1000)
        made += 1
except OSError:
    print(made)
"""
    run = cell.run(Wish(python(program), pids=16))
    assert run.succeeded() == "15\n"
    assert (run.outcome.pids_peak, run.outcome.stragglers) == (16, 1)


def test_the_share_of_a_processor_is_held(cell: Cell) -> None:
    outcome = cell.run(Wish(["sh", "-c", "while :; do :; done"], wall_s=2, quota_us=20_000)).outcome
    assert outcome.cause is Cause.TIMEOUT
    assert outcome.cpu_user_ns + outcome.cpu_system_ns < outcome.wall_ns // 2


@pytest.mark.parametrize("swap", [0, 3 * MIB])
def test_swap_is_what_the_plan_says(cell: Cell, subtree: Path, swap: int) -> None:
    with Pipes(b"") as pipes:
        cell.order(Wish(["true"], memory=64 * MIB, swap=swap, sandbox="swapping", pin=True).packed(), pipes.theirs)
        pipes.close_theirs()
        kind, _, _, fds = cell.hear()  # everything is in place by then, and nothing runs yet
        assert kind == Message.PINNED
        for fd in fds:
            os.close(fd)
        assert int((subtree / "tenants/tests/swapping/memory.swap.max").read_text()) == swap
        cell.go()
        cell.outcome()


def test_a_rate_of_disk_traffic_is_accepted(cell: Cell) -> None:
    assert cell.run(Wish(["true"], io_bps=10 * MIB)).outcome.si_status == 0


def test_traffic_is_measured(cell: Cell) -> None:
    assert Measured.IO in cell.run(Wish(["true"])).outcome.measured


def test_pid_1_is_outside_of_the_payloads_limit(cell: Cell) -> None:
    assert cell.run(Wish(["true"], pids=1)).outcome.si_status == 0


def test_it_sees_its_own_cgroup_as_the_root(cell: Cell) -> None:
    assert cell.run(Wish(["cat", "/proc/self/cgroup"])).succeeded() == "0::/\n"


def test_a_tenants_sandboxes_stand_in_its_own_group(cell: Cell, subtree: Path) -> None:
    cell.run(Wish(["true"], tenant="acme"))
    assert "memory" in (subtree / "tenants/acme/cgroup.subtree_control").read_text()


def test_every_controller_is_there(controllers: Controller) -> None:
    assert controllers == Controller.CPU | Controller.MEMORY | Controller.PIDS | Controller.IO | Controller.KILL
