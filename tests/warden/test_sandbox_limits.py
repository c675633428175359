"""What cgroups hold in a sandbox: an exec's own limits, the sandbox's over all of them, and who ends of which."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from immured.isolation.abi import Cause, Measured, Stage
from tests.patience import PATIENCE_S
from tests.warden.cell import Cell, Wish, python
from tests.warden.sandbox import OVER, Sandbox, shell

pytestmark = pytest.mark.needs_cgroup2

MIB = 1 << 20
HOG = "x = b'x' * (200 << 20)"
BOMB = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass"


@pytest.fixture
def living(cells: Callable[..., Cell]) -> Callable[..., Sandbox]:
    """Makes sandboxes with limits of their own."""
    return lambda **limits: Sandbox(cells(), Wish(["-"], **limits))


def test_an_exec_dies_of_its_own_memory_and_no_other(living: Callable[..., Sandbox]) -> None:
    with living(memory=512 * MIB) as sandbox:
        other = sandbox.start(shell("read line; echo alive"), stdin=b"x\n")
        outcome = sandbox.run(Wish(python(HOG), memory=64 * MIB)).outcome
        assert outcome.cause is Cause.OOM
        assert outcome.memory_peak <= 64 * MIB
        assert other.result().succeeded() == "alive\n"


def test_of_the_sandboxs_memory_one_whole_exec_dies(living: Callable[..., Sandbox]) -> None:
    with living(memory=100 * MIB) as sandbox:
        other = sandbox.keep(shell("echo ready; read line; echo alive"))
        other.wait_for_log(b"ready")
        child = f"import os\nif os.fork() == 0:\n  {HOG}\nos.wait()\nprint('still here')"
        run = sandbox.run(Wish(python(child)))
        assert (run.outcome.cause, run.stdout) == (Cause.OOM, b"")
        os.write(other.stdin, b"x\n")
        assert other.exited().si_status == 0
        assert sandbox.run(shell("echo next")).succeeded() == "next\n"
        assert sandbox.measure().so_far.oom_kills >= 1


def test_a_fork_bomb_ends_its_exec_where_its_plan_says_so(living: Callable[..., Sandbox]) -> None:
    with living(pids=200) as sandbox:
        assert sandbox.run(Wish(python(BOMB), pids=32, kill_on_pids=True)).outcome.cause is Cause.PIDS
        assert sandbox.run(shell("echo next")).succeeded() == "next\n"


def test_the_sandboxs_processes_bound_those_of_all_its_execs(living: Callable[..., Sandbox]) -> None:
    hoard = """
import os, time
made = 0
try:
    while os.fork():
        made += 1
except OSError:
    print(made, flush=True)
time.sleep(1000)
"""
    with living(pids=32) as sandbox:
        one = sandbox.start(Wish(python(hoard)))
        one.wait_for_output(b"\n")
        assert sandbox.measure().pids_now == 32
        failed = sandbox.refused(shell("true"))
        assert (failed.stage, failed.errno) == (Stage.PROCESS, errno.EAGAIN)
        one.kill()
        one.exited()
        assert sandbox.run(shell("echo next")).succeeded() == "next\n"


def test_what_all_of_it_uses_is_measured(living: Callable[..., Sandbox]) -> None:
    with living(memory=512 * MIB, pids=100) as sandbox:
        one = sandbox.start(
            Wish(python("x = b'x' * (40 << 20)\nprint('ready', flush=True)\nimport time; time.sleep(1000)"))
        )
        one.wait_for_output(b"ready")
        now = sandbox.measure()
        assert Measured.MEMORY in now.so_far.measured
        assert now.memory_now >= 40 * MIB
        assert now.pids_now == 1
        assert sandbox.kill().memory_peak >= 40 * MIB


def test_a_place_counts_as_the_sandboxs_memory_after_its_exec(living: Callable[..., Sandbox]) -> None:
    with living(memory=512 * MIB) as sandbox:
        sandbox.run(shell("head -c 50M /dev/zero > /tmp/zeros")).succeeded()
        assert sandbox.measure().memory_now >= 50 * MIB
        sandbox.run(shell("rm /tmp/zeros")).succeeded()
        deadline = time.monotonic() + PATIENCE_S
        while sandbox.measure().memory_now >= 50 * MIB:
            assert time.monotonic() < deadline


def test_cpu_time_is_shared_by_all_its_execs(living: Callable[..., Sandbox]) -> None:
    with living(quota_us=20_000) as sandbox:
        burn = "import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: pass"
        execs = [sandbox.start(Wish(python(burn))) for _ in range(2)]
        used = sum(one.exited().cpu_user_ns + one.exited().cpu_system_ns for one in execs)
        walls = max(one.exited().wall_ns for one in execs)
        assert used <= 0.2 * walls * 1.5 + 50e6


def test_nothing_of_a_sandbox_is_left_in_the_tree_of_cgroups(living: Callable[..., Sandbox], subtree: Path) -> None:
    with living(memory=256 * MIB, pids=100) as sandbox:
        for _ in range(5):
            sandbox.hear(sandbox.start(shell("cat /usr/bin/* > /dev/null 2>&1; true")).number, OVER)
        [execs] = subtree.rglob(f"{sandbox.name}/execs")
        assert len(list(execs.glob("*/"))) <= 1
        sandbox.kill()
        sandbox.cell.process.wait(PATIENCE_S)
    names = [path.name for path in subtree.rglob(sandbox.name)]
    assert names in ([], [sandbox.name])
    assert not list(subtree.rglob(f"{sandbox.name}/*/"))


def test_a_pause_holds_memory_and_frees_the_processor(living: Callable[..., Sandbox]) -> None:
    with living(memory=256 * MIB) as sandbox:
        one = sandbox.start(Wish(python("print('ready', flush=True)\nwhile True: pass")))
        one.wait_for_output(b"ready")
        assert sandbox.freeze(True).on
        before = sandbox.measure().so_far
        time.sleep(0.3)
        after = sandbox.measure().so_far
        assert before.cpu_user_ns + before.cpu_system_ns == after.cpu_user_ns + after.cpu_system_ns
        sandbox.kill()
        assert one.exited().cause is Cause.KILLED
