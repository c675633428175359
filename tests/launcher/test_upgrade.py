"""The launcher becomes a newer one as the same process: who lives, lives on, and who comes finds it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from immured.isolation import messages
from immured.isolation.abi import Cause, Message
from tests.descriptors import descriptors
from tests.launcher.harness import Broker, descendants, eventually, exec_plan, name_of, plan_for, sandbox_plan
from tests.patience import PATIENCE_S

Start = Callable[..., Broker]
S, E = 11, 12


@pytest.fixture
def program(fake_launcher: Path, tmp_path: Path) -> Path:
    """A launcher of the test's own to become: what is there can be replaced."""
    path = tmp_path / "program"
    shutil.copy(fake_launcher, path)
    path.chmod(0o755)
    return path


@pytest.fixture
def broker(start: Start, tmp_path: Path, program: Path) -> Broker:
    """Of a launcher that stands by itself, with a sandbox."""
    control = tmp_path / "launcher.sock"
    broker = start(standing=True, control=control, broker_uid=4321, program=program)
    broker.come(control)
    broker.create(S, sandbox_plan())
    assert broker.of_run(S).type == Message.CREATED
    return broker


def upgrades(broker: Broker) -> int:
    return broker.log.read_text().count("becoming ")


def upgrade(broker: Broker) -> None:
    before = upgrades(broker)
    broker.process.send_signal(signal.SIGHUP)
    assert eventually(lambda: upgrades(broker) > before), broker.log.read_text()
    broker.send(messages.encode_measure(S))  # answered by whoever is there then
    assert broker.of_run(S).failed.text.startswith(f"type {int(Message.MEASURE)}")


def parkers(broker: Broker) -> int:
    return sum(name_of(pid) == "immured-parker" for pid in descendants(broker.process.pid))


def test_sandboxes_execs_and_connections_live_on(broker: Broker) -> None:
    broker.exec(E, S, exec_plan("/bin/true"))
    broker.of_run(E)
    with broker.connection() as connection:
        upgrade(broker)
        broker.send(messages.encode_signal(E, 15, everybody=False))
        assert broker.of_run(E).failed.text.startswith(f"type {int(Message.SIGNAL)}")
        assert broker.run(connection, plan_for("true")).exited.cause == Cause.EXITED
        broker.create(21, sandbox_plan("s-2"), connection=connection)
        assert broker.of_run(21).type == Message.CREATED
    broker.kill(S)
    assert broker.of_run(S).exited.cause == Cause.KILLED


def test_a_run_of_before_is_told_of(broker: Broker) -> None:
    with broker.connection() as connection:
        run = broker.prepare(connection, plan_for("hold"), run=30)
        upgrade(broker)
        broker.kill(run)
        assert broker.of_run(run).id == run


def test_twenty_in_a_row_leave_nothing_behind(broker: Broker) -> None:
    open_first = 0
    for _ in range(20):
        upgrade(broker)
        assert eventually(lambda: parkers(broker) == 2)  # the sandbox's, and the newest
        open_first = open_first or len(descriptors(broker.process.pid))
    # Cells that wait come and go.
    assert eventually(lambda: len(descriptors(broker.process.pid)) <= open_first + 4)
    broker.kill(S)
    broker.of_run(S)
    assert eventually(lambda: parkers(broker) == 1)


def test_the_next_broker_finds_what_lives(broker: Broker, tmp_path: Path) -> None:
    upgrade(broker)
    assert broker.come(tmp_path / "launcher.sock").sandboxes == (S,)
    packet = broker.of_run(S)
    assert packet.type == Message.KEPT
    os.close(packet.fds[0])


def test_numbers_of_connections_go_on(broker: Broker) -> None:
    with broker.connection() as first:
        upgrade(broker)
        with broker.connection() as second:
            assert second > first


def test_the_end_is_as_tidy_as_ever(broker: Broker, tmp_path: Path) -> None:
    upgrade(broker)
    kin = descendants(broker.process.pid)
    broker.process.terminate()
    assert broker.process.wait(PATIENCE_S) == 0
    assert kin
    assert not [pid for pid in kin if name_of(pid)]
    assert not (tmp_path / "launcher.sock").exists()
    assert not broker.path.exists()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.chmod(0o777), "not a file that only root may write"),
        (lambda path: os.chown(path, 1000, 1000), "not a file that only root may write"),
        (lambda path: path.write_bytes(b"\x7fELF nonsense"), "does not take over"),
        (lambda path: shutil.copy("/bin/false", path), "does not take over"),
        (lambda path: shutil.copy("/bin/sleep", path), "does not take over"),
    ],
)
def test_what_is_no_launcher_is_not_become(
    broker: Broker, program: Path, spoil: Callable[[Path], object], said: str
) -> None:
    spoil(program)
    broker.process.send_signal(signal.SIGHUP)
    assert eventually(lambda: said in broker.log.read_text()), broker.log.read_text()
    assert upgrades(broker) == 0
    broker.send(messages.encode_measure(S))
    assert broker.of_run(S).failed.text.startswith("type")


def test_a_socket_that_was_handed_over_is_listened_at_still(start: Start, tmp_path: Path, program: Path) -> None:
    control, place = tmp_path / "launcher.sock", tmp_path / "activated.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.fspath(place))
        listening.listen()
        broker = start(
            standing=True,
            control=control,
            broker_uid=4321,
            program=program,
            socket=place,
            listen_fd=listening.fileno(),
        )
    broker.come(control)
    broker.create(S, sandbox_plan())
    broker.of_run(S)
    with broker.connection():
        pass
    upgrade(broker)
    with broker.connection():
        pass
    broker.process.terminate()
    assert broker.process.wait(PATIENCE_S) == 0
    assert place.exists()  # it is the service manager's
