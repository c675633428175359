"""The launcher's start and end, and everything that may die in between."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from immured.isolation import messages
from immured.isolation.abi import Cause, Message, Stage
from tests.launcher.harness import SLOT_BASE, Broker, descendants, eventually, gone, murder, plan_for
from tests.patience import PATIENCE_S

Start = Callable[..., Broker]


def test_ready_names_the_block_of_ids(start: Start) -> None:
    ready = start(slot_count=7).ready()
    assert (ready.slot_base, ready.slot_count, ready.cgroup) == (SLOT_BASE, 7, "")


def test_descriptors_suffice_for_every_run_that_may_wait(start: Start) -> None:
    """A run waits with its plan, its 0, 1 and 2, the pipe of GO and a log: six, 4,096 times. As far as the hard limit
    goes, where that cannot be raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024), hard))
    try:
        broker = start(slot_count=7)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    broker.ready()
    assert resource.prlimit(broker.process.pid, resource.RLIMIT_NOFILE)[0] >= min(hard, 7 + 6 * 4096)


def test_everybody_may_connect(broker: Broker) -> None:
    assert stat.S_IMODE(broker.path.stat().st_mode) == 0o666


def test_a_socket_left_by_a_crash_is_replaced(start: Start, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(os.fspath(tmp_path / "immured.sock"))
    start().ready()


def test_a_file_in_the_sockets_place_is_left_alone(start: Start, tmp_path: Path) -> None:
    place = tmp_path / "immured.sock"
    place.write_text("precious")
    assert start().process.wait(PATIENCE_S) == 1
    assert place.read_text() == "precious"


def test_a_path_longer_than_an_address_is_listened_on(start: Start, tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 100) / ("e" * 100)
    directory.mkdir(parents=True)
    broker = start(socket=directory / "immured.sock")
    broker.ready()
    here = os.open(directory, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"/proc/self/fd/{here}/immured.sock")
    os.close(here)
    assert broker.wait_for(lambda packet: packet.type == Message.CONN).id == 1


@pytest.mark.parametrize(
    "options",
    [
        {"slot_base": 0},
        {"slot_base": 1000},
        {"slot_count": 0},
        {"slot_base": 0xFFFE0000, "slot_count": 2},
        {"pool_min": 5, "pool_max": 4},
        {"pool_max": 9},
        {"pool_min": "-1"},
        {"socket": "relative.sock"},
        {"grant_read": ["relative"]},
        {"control_fd": 999},
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(start: Start, options: dict[str, object]) -> None:
    assert start(**options).process.wait(PATIENCE_S) == 2


def test_the_end_of_the_broker_ends_everything(broker: Broker) -> None:
    with broker.connection() as connection:
        run = broker.prepare(connection, plan_for("hold"))
        broker.go(run)
    kin = descendants(broker.process.pid)
    assert broker.end() == 0
    assert all(gone(pid) for pid in kin)
    assert not broker.path.exists()


def test_signals_do_not_end_it(broker: Broker) -> None:
    broker.process.terminate()
    with broker.connection() as connection:
        assert broker.run(connection, plan_for("true")).exited.cause == Cause.EXITED


def test_a_killed_launcher_leaves_nobody(broker: Broker) -> None:
    with broker.connection() as connection:
        broker.prepare(connection, plan_for("hold"))
        kin = descendants(broker.process.pid)
        murder(broker.process.pid)
    assert kin
    assert eventually(lambda: all(gone(pid) for pid in kin))


def test_the_lock_outlives_a_killed_launcher_until_its_wardens_are_gone(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "launcher.lock"
    gate, hold = os.pipe()
    told, tell = os.pipe()
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        broker = start(lock_fd=lock.fileno())
        broker.ready()
        with broker.connection() as connection:
            run = broker.prepare(connection, plan_for("orphan"), fds=[gate, tell, broker.null])
            broker.go(run)
            assert os.read(told, 1) == b"o"
    for fd in (gate, told, tell):
        os.close(fd)
    murder(broker.process.pid)
    broker.process.wait(PATIENCE_S)

    def free() -> bool:
        with path.open("w") as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    assert not free()
    os.close(hold)
    assert eventually(free)


def test_without_its_parker_it_ends(broker: Broker) -> None:
    kin = descendants(broker.process.pid)
    murder(broker.parker)
    assert broker.process.wait(PATIENCE_S) == 1
    assert all(gone(pid) for pid in kin)


@pytest.mark.parametrize(
    "packet",
    [
        messages.HEADER.pack(77, messages.HEADER.size, 1),
        messages.HEADER.pack(Message.STOP, messages.HEADER.size + 1, 1),
        messages.HEADER.pack(Message.PREPARE, messages.HEADER.size, 1),
        messages.HEADER.pack(Message.KILL, messages.HEADER.size, 1),
        b"short",
    ],
)
def test_a_broker_of_another_build_ends_it(broker: Broker, packet: bytes) -> None:
    broker.send(packet)
    assert broker.process.wait(PATIENCE_S) == 1


def test_a_number_in_use_ends_it(broker: Broker) -> None:
    with broker.connection() as connection:
        broker.prepare(connection, plan_for("hold"), run=5)
        broker.prepare(connection, plan_for("hold"), run=5)
    assert broker.process.wait(PATIENCE_S) == 1


def test_stop_accepts_nobody_and_lets_runs_go_on(broker: Broker) -> None:
    with broker.connection() as connection:
        broker.send(messages.encode_stop())
        assert broker.run(connection, plan_for("true")).exited.cause == Cause.EXITED
    assert not broker.path.exists()


def test_messages_about_what_is_over_are_passed_by(broker: Broker) -> None:
    broker.kill(99)
    broker.send(messages.encode_connection_closed(99))
    with broker.connection() as connection:
        assert broker.run(connection, plan_for("true")).exited.cause == Cause.EXITED


def test_an_unknown_connection_opens_nothing(broker: Broker) -> None:
    failed = broker.run(42, plan_for("true")).failed
    assert (failed.stage, failed.text) == (Stage.PLAN, "unknown connection 42")


def test_a_closed_connection_opens_nothing(broker: Broker) -> None:
    with broker.connection() as connection:
        pass
    assert broker.run(connection, plan_for("true")).failed.stage == Stage.PLAN
