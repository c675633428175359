"""The launcher with its own wardens: real cells, from prepare to the end, and everybody's death."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import immured
from immured.isolation.abi import Cause, Stage
from tests.launcher.harness import SLOT_BASE, Broker, descendants, eventually, gone, murder, plan_for
from tests.warden.places import host_mounts

Start = Callable[..., Broker]

SLOTS = 8


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Start]:
    """Start the launcher that `make build` made; ended after the test."""
    program = Path(immured.__file__).parent / "_native" / "immured-launcher"
    brokers: list[Broker] = []

    def begin(**options: object) -> Broker:
        brokers.append(Broker(program, tmp_path, slot_count=SLOTS, **options))
        brokers[-1].ready()
        return brokers[-1]

    yield begin
    for broker in brokers:
        broker.close()


def sleepers() -> set[int]:
    """Payloads: what runs `sleep` under the tests' ids. A parked cell has a process there too."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            ours = entry.name.isdigit() and SLOT_BASE <= entry.stat().st_uid < SLOT_BASE + SLOTS * 65536
            if ours and (entry / "comm").read_text() == "sleep\n":
                found.add(int(entry.name))
        except OSError:
            continue
    return found


def hold(broker: Broker, connection: int) -> int:
    """A run of `sleep` that has started."""
    before = sleepers()
    run = broker.prepare(connection, plan_for("/bin/sleep", "1000"))
    broker.go(run)
    assert eventually(lambda: bool(sleepers() - before))
    return run


@pytest.mark.parametrize(("program", "status"), [("/bin/true", 0), ("/bin/false", 1)])
def test_a_program_runs_and_its_status_comes_back(begin: Start, program: str, status: int) -> None:
    broker = begin()
    with broker.connection() as connection:
        exited = broker.run(connection, plan_for(program)).exited
    assert (exited.cause, exited.si_status) == (Cause.EXITED, status)


def test_its_output_is_the_descriptors_that_came_with_it(begin: Start) -> None:
    broker = begin()
    ours, theirs = os.pipe()
    with broker.connection() as connection:
        run = broker.prepare(connection, plan_for("/bin/echo", "hello"), fds=[broker.null, theirs, theirs])
        os.close(theirs)
        broker.go(run)
        assert broker.of_run(run).exited.si_status == 0
    with open(ours, "rb") as output:
        assert output.read() == b"hello\n"


def test_a_program_that_is_not_there_is_a_failure_of_exec(begin: Start) -> None:
    broker = begin()
    with broker.connection() as connection:
        assert broker.run(connection, plan_for("/bin/no-such-program")).failed.stage == Stage.EXEC


def test_more_runs_than_ranges_one_after_the_other(begin: Start) -> None:
    broker = begin()
    with broker.connection() as connection:
        ends = [broker.run(connection, plan_for("/bin/true", sandbox=f"s-{i}")) for i in range(3 * SLOTS)]
    assert all(end.exited.cause == Cause.EXITED for end in ends)


def test_a_kill_ends_the_run(begin: Start) -> None:
    broker = begin()
    with broker.connection() as connection:
        run = hold(broker, connection)
        broker.kill(run)
        assert broker.of_run(run).exited.cause == Cause.KILLED


def test_the_end_of_the_broker_ends_every_process(begin: Start) -> None:
    broker = begin()
    with broker.connection() as connection:
        hold(broker, connection)
    assert broker.end() == 0
    assert not sleepers()


@pytest.mark.parametrize("victim", ["launcher", "parker", "warden"])
def test_whoever_is_killed_no_process_of_a_run_is_left(begin: Start, victim: str) -> None:
    broker = begin()
    with broker.connection() as connection:
        hold(broker, connection)
        if victim == "warden":
            for pid in broker.kin("immured-warden"):
                with suppress(ProcessLookupError):  # one that was ending: the pool keeps to its size
                    murder(pid)
        else:
            murder(broker.process.pid if victim == "launcher" else broker.parker)
        assert eventually(lambda: not sleepers())


def test_a_killed_warden_ends_its_run_only(begin: Start) -> None:
    broker = begin(pool_min=0, pool_max=0)
    with broker.connection() as connection:
        first = hold(broker, connection)
        wardens = broker.kin("immured-warden")
        second = hold(broker, connection)
        murder(min(wardens))
        assert broker.of_run(first).failed.stage == Stage.LOST
        with pytest.raises(TimeoutError):
            broker.of_run(second, timeout=0.2)


def test_the_broker_closes_its_socket_and_nobody_is_left(begin: Start) -> None:
    broker = begin(pool_min=4)
    assert eventually(lambda: len(descendants(broker.process.pid)) > 4)
    kin = descendants(broker.process.pid)
    broker.end()
    assert all(gone(pid) for pid in kin)


def test_mounts_of_the_host_stay_as_they_are(begin: Start, tmp_path: Path) -> None:
    before = host_mounts(tmp_path)
    broker = begin()
    with broker.connection() as connection:
        broker.run(connection, plan_for("/bin/true"))
    broker.end()
    assert host_mounts(tmp_path) == before


def test_nothing_needs_the_brokers_environment(begin: Start) -> None:
    broker = begin()
    with broker.connection() as connection:
        run = hold(broker, connection)
        (pid,) = sleepers()
        environment = subprocess.run(["cat", f"/proc/{pid}/environ"], capture_output=True, check=True).stdout
        broker.kill(run)
    assert environment == b""
