"""Runs through the launcher: to a parked cell and back, and each way in which a warden can fail them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from immured.isolation import abi, messages
from immured.isolation.abi import Cause, Message, Stage
from tests.launcher.harness import SLOT_BASE, Broker, eventually, plan_for

Start = Callable[..., Broker]


def test_a_run_from_prepare_to_its_outcome(broker: Broker) -> None:
    with broker.connection() as connection:
        run = broker.prepare(connection, plan_for("true"))
        broker.go(run)
        assert broker.of_run(run).exited.cause == Cause.EXITED


def test_a_go_that_comes_before_there_is_a_cell_is_kept(start: Start) -> None:
    broker = start(slot_count=4, pool_min=0, pool_max=2)
    broker.ready()
    with broker.connection() as connection:
        run = broker.prepare(connection, plan_for("true"))
        broker.go(run)
        assert broker.of_run(run).exited.cause == Cause.EXITED


def test_a_run_without_go_waits_and_is_called_off_by_the_end_of_its_pipe(broker: Broker) -> None:
    with broker.connection() as connection:
        run = broker.prepare(connection, plan_for("true"))
        with pytest.raises(TimeoutError):
            broker.of_run(run, timeout=0.2)
        broker.call_off(run)
        assert broker.of_run(run).failed.stage == Stage.KILLED


def test_many_runs_at_once_end_each_with_its_own_number(start: Start) -> None:
    broker = start(slot_count=64, pool_min=2, pool_max=8)
    broker.ready()
    with broker.connection() as connection:
        runs = [broker.prepare(connection, plan_for("true", sandbox=f"s-{i}")) for i in range(40)]
        for run in reversed(runs):
            broker.go(run)
        assert all(broker.of_run(run).exited.cause == Cause.EXITED for run in runs)


def test_a_large_plan_travels_as_a_sealed_memfd(broker: Broker) -> None:
    plan = plan_for("true", env=[f"V{i}={'x' * 1000}" for i in range(200)])
    with broker.connection() as connection:
        run = broker.prepare(connection, plan, memfd=True)
        broker.go(run)
        assert broker.of_run(run).exited.cause == Cause.EXITED


def test_a_plan_that_fills_a_packet_arrives(broker: Broker) -> None:
    head = messages.HEADER.size + 16
    room = abi.MAX_PACKET - head - len(plan_for("true", env=["V="]))
    plan = plan_for("true", env=["V=" + "x" * (room // 8 * 8)])
    assert abi.MAX_PACKET - 8 < head + len(plan) <= abi.MAX_PACKET
    with broker.connection() as connection:
        assert broker.run(connection, plan).exited.cause == Cause.EXITED


def test_a_plan_that_its_writer_could_still_change_is_refused(broker: Broker) -> None:
    plan = plan_for("true")
    image = os.memfd_create("plan", os.MFD_ALLOW_SEALING)
    os.write(image, plan)
    with broker.connection() as connection:
        broker.send(messages.encode_prepare(9, connection, plan, in_memfd=True), [image] + [broker.null] * 4)
        failed = broker.of_run(9).failed
    os.close(image)
    assert (failed.stage, failed.text) == (Stage.PLAN, "the plan's memory is not sealed")


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_descriptors_that_are_not_three_and_a_pipe_are_refused(broker: Broker, count: int) -> None:
    with broker.connection() as connection:
        run = broker.prepare(connection, plan_for("true"), fds=[broker.null] * count)
        assert broker.of_run(run).failed.stage == Stage.PLAN


def test_a_plan_that_breaks_a_rule_is_refused_with_its_step(broker: Broker) -> None:
    plan = plan_for("true", sandbox="s-1").replace(b"s-1", b"../")
    with broker.connection() as connection:
        failed = broker.run(connection, plan).failed
    assert (failed.stage, failed.step, failed.text) == (Stage.PLAN, 1, "sandbox is not a name: ../")


def test_the_warden_is_told_who_connected(broker: Broker) -> None:
    with broker.connection() as connection:
        text = broker.run(connection, plan_for("describe")).failed.text
    groups = "".join(f" {group}" for group in os.getgroups())
    assert text.startswith(f"uid {os.getuid()} gid {os.getgid()} ")
    assert text.endswith(f"groups{groups}")


def test_collected_files_reach_the_broker(broker: Broker, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abc"]
    fds = [os.open(path, os.O_CREAT | os.O_RDWR) for path in paths]
    with broker.connection() as connection:
        run = broker.prepare(connection, plan_for("collect"), fds=fds)
        broker.go(run)
        packet = broker.of_run(run)
    assert [os.fstat(fd).st_ino for fd in packet.fds] == [path.stat().st_ino for path in paths]
    for fd in (*fds, *packet.fds):
        os.close(fd)


def test_killed_while_it_is_prepared(broker: Broker) -> None:
    with broker.connection() as connection:
        run = broker.prepare(connection, plan_for("never-prepared"))
        broker.kill(run)
        broker.kill(run)
        assert broker.of_run(run).failed.stage == Stage.KILLED


def test_killed_while_it_runs(broker: Broker) -> None:
    with broker.connection() as connection:
        told, tell = os.pipe()
        run = broker.prepare(connection, plan_for("hold"), fds=[broker.null, tell, broker.null])
        broker.go(run)
        assert os.read(told, 1) == b"h"
        broker.kill(run)
        assert broker.of_run(run).exited.cause == Cause.KILLED
        os.close(told)
        os.close(tell)


def test_an_outcome_that_a_kill_crosses_is_not_lost(broker: Broker) -> None:
    with broker.connection() as connection:
        for _ in range(100):
            run = broker.prepare(connection, plan_for("true"))
            broker.go(run)
            broker.kill(run)
            end = broker.of_run(run)
            if end.type == Message.FAILED:  # the kill was first
                assert end.failed.stage == Stage.KILLED
            else:
                assert end.exited.cause == Cause.EXITED


def test_a_warden_that_dies_before_the_run_is_a_failure(broker: Broker) -> None:
    with broker.connection() as connection:
        failed = broker.run(connection, plan_for("die-preparing")).failed
    assert (failed.stage, failed.text) == (Stage.LOST, "the cell's warden was killed by signal 9")


def test_a_warden_that_dies_under_the_run_is_told_as_lost(broker: Broker) -> None:
    with broker.connection() as connection:
        failed = broker.run(connection, plan_for("die-running")).failed
    assert (failed.stage, failed.text) == (Stage.LOST, "the cell's warden was killed by signal 9")


def test_a_run_is_not_over_before_what_its_warden_left(broker: Broker) -> None:
    gate, hold = os.pipe()
    with broker.connection() as connection:
        run = broker.prepare(connection, plan_for("orphan"), fds=[gate, broker.null, broker.null])
        os.close(gate)
        broker.go(run)
        with pytest.raises(TimeoutError):
            broker.of_run(run, timeout=0.5)
        os.close(hold)
        assert broker.of_run(run).failed.stage == Stage.LOST


def test_a_range_of_ids_rests_until_its_warden_is_gone(start: Start) -> None:
    broker = start(slot_count=2, pool_min=0, pool_max=0)
    broker.ready()
    gate, hold = os.pipe()
    told, tell = os.pipe()
    with broker.connection() as connection:
        run = broker.prepare(connection, plan_for("orphan"), fds=[gate, tell, broker.null])
        os.close(gate)
        broker.go(run)
        assert os.read(told, 1) == b"o"
        bases = {broker.run(connection, plan_for("describe")).failed.text.split()[5] for _ in range(4)}
        os.close(hold)
        broker.of_run(run)
    os.close(told)
    os.close(tell)
    assert bases == {str(SLOT_BASE + 65536)}


def test_runs_beyond_the_ranges_wait_for_their_turn(start: Start) -> None:
    broker = start(slot_count=1, pool_max=1)
    broker.ready()
    with broker.connection() as connection:
        first = broker.prepare(connection, plan_for("hold"))
        second = broker.prepare(connection, plan_for("true"))
        broker.go(second)
        with pytest.raises(TimeoutError):
            broker.of_run(second, timeout=0.2)
        broker.go(first)
        broker.kill(first)
        assert broker.of_run(second).exited.cause == Cause.EXITED


def test_killed_while_it_waits_for_a_cell(start: Start) -> None:
    broker = start(slot_count=1, pool_max=1)
    broker.ready()
    with broker.connection() as connection:
        broker.prepare(connection, plan_for("hold"))
        second = broker.prepare(connection, plan_for("true"))
        broker.kill(second)
        assert broker.of_run(second).failed.stage == Stage.KILLED


def test_a_queue_that_is_full_says_so(start: Start) -> None:
    broker = start(slot_count=1, pool_max=1)
    broker.ready()
    with broker.connection() as connection:
        broker.prepare(connection, plan_for("hold"))
        waiting = [broker.prepare(connection, plan_for("true")) for _ in range(4096)]
        over = broker.prepare(connection, plan_for("true"))
        failed = broker.of_run(over).failed
        assert (failed.stage, failed.errno) == (Stage.CELL, errno.EAGAIN)
        broker.kill(waiting[-1])
        assert broker.of_run(waiting[-1]).failed.stage == Stage.KILLED


def test_cells_that_cannot_be_made_fail_the_runs_that_wait(start: Start, tmp_path: Path) -> None:
    trouble = tmp_path / "trouble"
    trouble.touch()
    broker = start(grant_read=[trouble])
    broker.ready()
    with broker.connection() as connection:
        failed = broker.run(connection, plan_for("true")).failed
    assert (failed.stage, failed.errno, failed.text) == (Stage.CELL, errno.EPERM, "the fake was told to fail")


def test_runs_work_again_once_cells_can_be_made(start: Start, tmp_path: Path) -> None:
    trouble = tmp_path / "trouble"
    trouble.touch()
    broker = start(grant_read=[trouble])
    broker.ready()
    with broker.connection() as connection:
        assert broker.run(connection, plan_for("true")).failed.stage == Stage.CELL
        trouble.unlink()
        assert broker.run(connection, plan_for("true")).exited.cause == Cause.EXITED


def test_a_pool_that_was_found_empty_grows(start: Start) -> None:
    broker = start(slot_count=16, pool_min=0, pool_max=4)
    broker.ready()
    with broker.connection() as connection:
        for _ in range(6):
            broker.prepare(connection, plan_for("hold"))
        assert eventually(lambda: len(broker.kin("immured-warden")) == 10)


def test_a_pool_that_is_idle_shrinks(start: Start) -> None:
    broker = start(slot_count=16, pool_min=1, pool_max=4)
    broker.ready()
    with broker.connection() as connection:
        runs = [broker.prepare(connection, plan_for("hold")) for _ in range(6)]
        for run in runs:
            broker.go(run)
            broker.kill(run)
            broker.of_run(run)
        assert eventually(lambda: len(broker.kin("immured-warden")) == 1)
