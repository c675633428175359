"""Brokers that come and go: who may come, what is kept between two, and for how long."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from immured.isolation import messages
from immured.isolation.abi import Cause, KeptKind, Message, Stage
from tests.descriptors import descriptors
from tests.launcher.harness import Broker, eventually, exec_plan, gone, murder, plan_for, sandbox_plan
from tests.patience import PATIENCE_S

Start = Callable[..., Broker]
S, E = 11, 12
BROKER_UID = 4321


@pytest.fixture
def control(tmp_path: Path) -> Path:
    return tmp_path / "launcher.sock"


@pytest.fixture
def begin(start: Start, control: Path) -> Start:
    """A launcher that waits for brokers at `control`."""

    def begin(**options: object) -> Broker:
        broker = start(**{"control": control, "broker_uid": BROKER_UID, "orphan_ms": 30_000} | options)
        if not options.get("standing"):
            broker.ready()
        return broker

    return begin


def live(broker: Broker, number: int = S, sandbox: str = "s-1") -> None:
    broker.create(number, sandbox_plan(sandbox))
    assert broker.of_run(number).type == Message.CREATED


def test_only_the_brokers_user_may_open_the_place(begin: Start, control: Path) -> None:
    begin()
    facts = control.stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_uid) == (0o600, BROKER_UID)


def test_a_broker_finds_the_sandboxes_of_the_one_before(begin: Start, control: Path) -> None:
    broker = begin()
    live(broker)
    live(broker, 21, "s-2")
    ready = broker.come(control)
    assert sorted(ready.sandboxes) == [S, 21]
    for number in (S, 21):
        packet = broker.of_run(number)
        kept = messages.parse_kept(packet.body)
        assert (packet.type, kept.kind, kept.sandbox) == (Message.KEPT, KeptKind.SANDBOX, number)
        with os.fdopen(packet.fds[0], "rb") as record:
            record.seek(0)
            assert record.read() == b"record of %d" % number
    broker.kill(S)
    broker.of_run(S)
    broker.send(messages.encode_measure(21))
    assert broker.of_run(21).failed.text.startswith("type")


def test_ten_brokers_after_another_find_the_same(begin: Start, control: Path) -> None:
    broker = begin()
    live(broker)
    open_first = 0
    for _ in range(10):
        assert broker.come(control).sandboxes == (S,)
        packet = broker.of_run(S)
        assert packet.type == Message.KEPT
        os.close(packet.fds[0])
        open_first = open_first or len(descriptors(broker.process.pid))
    # Cells that wait come and go.
    assert eventually(lambda: len(descriptors(broker.process.pid)) <= open_first + 4)


def test_an_end_that_nobody_heard_is_told_to_the_next(begin: Start, control: Path) -> None:
    broker = begin()
    live(broker)
    live(broker, 21, "s-2")
    broker.kill(S)  # and before it is told, the broker goes
    ready = broker.come(control)
    assert ready.sandboxes == (21,)
    assert broker.of_run(S).type == Message.EXITED


def test_runs_and_those_that_wait_end_with_their_broker(begin: Start, control: Path) -> None:
    broker = begin(slot_count=3, pool_max=3)
    live(broker)
    [keeper] = [pid for pid in broker.kin("immured-warden") if holds_record(pid)]
    client, packet = broker.connect()
    told, tell = os.pipe()
    with client, open(told, "rb") as held:
        broker.prepare(packet.id, plan_for("hold"))
        run = broker.prepare(packet.id, plan_for("hold"), fds=[broker.null, tell, broker.null])
        os.close(tell)
        broker.go(run)
        assert held.read(1) == b"h"  # it has the last cell, and who came before it has one
        for _ in range(2):
            broker.prepare(packet.id, plan_for("hold"))
        wardens = set(broker.kin("immured-warden")) - {keeper}
        assert len(wardens) == 2
        assert broker.come(control).sandboxes == (S,)
        assert eventually(lambda: all(gone(pid) for pid in wardens))
        assert not gone(keeper)
        client.settimeout(PATIENCE_S)
        assert client.recv(1) == b""  # whoever served this connection is gone
    packet = broker.of_run(S)
    os.close(packet.fds[0])
    assert broker.run(packet.id, plan_for("true")).failed.text.startswith("unknown connection")


def test_who_connects_meanwhile_waits_for_the_next_broker(begin: Start, control: Path) -> None:
    broker = begin()
    live(broker)
    broker.sock.close()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(broker.path))
        broker.come(control)
        packet = broker.wait_for(lambda packet: packet.type == Message.CONN)
        for fd in packet.fds:
            os.close(fd)
        with broker.connection():
            pass


def test_a_broker_that_leaves_in_order_is_asked_for_nothing_more(begin: Start, control: Path) -> None:
    """PAUSE: nobody is accepted for it, though it is still there; who connects waits."""
    broker = begin()
    live(broker)
    broker.send(messages.encode_pause())
    broker.send(messages.encode_measure(S))
    broker.of_run(S)  # what was said before it has been heard
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(broker.path))
        with pytest.raises(TimeoutError):
            broker.receive(0.3)
        broker.come(control)
        for fd in broker.wait_for(lambda packet: packet.type == Message.CONN).fds:
            os.close(fd)


def test_after_a_stop_the_next_broker_has_a_socket_again(begin: Start, control: Path) -> None:
    broker = begin()
    live(broker)
    broker.send(messages.encode_stop())
    broker.come(control)
    with broker.connection():
        pass


def test_without_sandboxes_it_ends_with_its_broker(begin: Start, control: Path) -> None:
    broker = begin()
    with broker.connection() as connection:
        broker.prepare(connection, plan_for("hold"))
    assert broker.end() == 0
    assert not control.exists()
    assert not broker.path.exists()


def test_sandboxes_that_are_being_killed_are_not_kept(begin: Start, control: Path) -> None:
    broker = begin()
    live(broker)
    broker.kill(S)
    assert broker.end() == 0
    assert not control.exists()


def test_it_ends_with_its_last_sandbox(begin: Start) -> None:
    broker = begin()
    live(broker)
    [keeper] = [pid for pid in broker.kin("immured-warden") if holds_record(pid)]
    broker.sock.close()
    assert eventually(lambda: "kept" in broker.log.read_text())
    murder(keeper)
    assert broker.process.wait(PATIENCE_S) == 0


def holds_record(pid: int) -> bool:
    with suppress(OSError):  # a cell that waited may be on its way out
        return any("memfd:record" in one for one in descriptors(pid))
    return False


def test_nobody_waits_for_a_broker_for_ever(begin: Start) -> None:
    broker = begin(orphan_ms=300)
    live(broker)
    began = time.monotonic()
    assert broker.end() == 0
    assert time.monotonic() - began >= 0.3
    assert "no broker came for 300 ms: 1 sandboxes end" in broker.log.read_text()


def test_one_that_stands_by_itself_outlives_all(begin: Start, control: Path) -> None:
    broker = begin(standing=True, orphan_ms=200)
    assert broker.come(control).sandboxes == ()
    live(broker)
    broker.sock.close()
    assert eventually(lambda: "1 sandboxes end" in broker.log.read_text())
    assert broker.come(control).sandboxes == ()
    with broker.connection() as connection:
        assert broker.run(connection, plan_for("true")).exited.cause == Cause.EXITED
    broker.process.send_signal(signal.SIGTERM)
    assert broker.process.wait(PATIENCE_S) == 0
    assert not control.exists()


def test_one_broker_at_a_time(begin: Start, control: Path) -> None:
    broker = begin()
    live(broker)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as second:
        second.connect(os.fspath(control))
        second.settimeout(0.3)
        with pytest.raises(TimeoutError):
            second.recv(100)
        with broker.connection():
            pass
        broker.sock.close()
        second.settimeout(PATIENCE_S)
        assert second.recv(65536)


@pytest.mark.needs_root
@pytest.mark.parametrize(("uid", "taken"), [(BROKER_UID, True), (0, True), (BROKER_UID + 1, False)])
def test_who_comes_is_looked_at(begin: Start, control: Path, tmp_path: Path, uid: int, taken: bool) -> None:
    """The mode of the file keeps others away; should it be opened up, they are turned away all the same."""
    begin(standing=True)
    assert eventually(control.exists)
    tmp_path.chmod(0o711)
    control.chmod(0o666)
    script = (
        "import os, socket, sys; os.chdir(sys.argv[1]); os.setuid(int(sys.argv[2]))\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.settimeout(100); s.connect('launcher.sock')\n"
        "try: sys.exit(0 if s.recv(65536) else 3)\n"
        "except ConnectionError: sys.exit(3)"
    )
    command = [sys.executable, "-c", script, str(tmp_path), str(uid)]
    assert subprocess.run(command, timeout=PATIENCE_S, check=False).returncode == (0 if taken else 3)


def test_a_broker_of_another_build_costs_no_sandbox(begin: Start, control: Path) -> None:
    broker = begin()
    live(broker)
    broker.send(messages.HEADER.pack(77, messages.HEADER.size, 1))
    assert broker.come(control).sandboxes == (S,)


def test_a_keeper_that_died_meanwhile_is_named_to_nobody(begin: Start, control: Path) -> None:
    broker = begin()
    live(broker, sandbox="dies")
    live(broker, 21, "s-2")
    broker.exec(E, S, exec_plan("/bin/true", sandbox="dies"))
    assert broker.of_run(S).failed.stage == Stage.LOST
    assert broker.come(control).sandboxes == (21,)
