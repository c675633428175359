"""Whoever closes a socket that lingers waits for as long as its owner likes: the launcher does not."""

from __future__ import annotations

import array
import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from immured.isolation import abi, messages
from immured.isolation.abi import Message
from tests.launcher.conftest import HERE, built
from tests.launcher.harness import Broker, plan_for
from tests.launcher.test_connections import every_user_reaches, heeded
from tests.lingering import lingering
from tests.patience import PATIENCE_S, until

Start = Callable[..., Broker]


@pytest.fixture(scope="module")
def announcing_launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It stops wherever it has told the broker of a connection."""
    return built(tmp_path_factory, os.fspath(HERE / "announcing.c"), "-Wl,--wrap=sendmsg")


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


@contextlib.contextmanager
def asleep(broker: Broker) -> Iterator[None]:
    """What is sent and closed meanwhile is there, and closed, when the launcher wakes up."""
    os.kill(broker.process.pid, signal.SIGSTOP)
    until(lambda: state(broker.process.pid) == "T")
    try:
        yield
    finally:
        os.kill(broker.process.pid, signal.SIGCONT)


def pass_on(client: socket.socket, passed: Sequence[socket.socket]) -> None:
    """Sent where nobody reads it, each in a message of its own; whoever receives them has the only ones."""
    for one in passed:
        client.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [one.fileno()]))])
        os.close(one.detach())


def test_it_closes_its_copy_of_a_connection_after_the_broker(announcing_launcher: Path, tmp_path: Path) -> None:
    with contextlib.closing(Broker(announcing_launcher, tmp_path)) as broker, lingering() as one, lingering() as other:
        try:
            broker.ready()
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(os.fspath(broker.path))
                packet = broker.wait_for(lambda packet: packet.type == Message.CONN, PATIENCE_S)
                until(lambda: state(broker.process.pid) == "T")
                pass_on(client, (one, other))
                os.close(packet.fds[0])
        finally:
            os.kill(broker.process.pid, signal.SIGCONT)
        assert heeded(broker)


def test_who_is_turned_away_with_what_lingers_holds_up_nobody(broker: Broker) -> None:
    broker.send(messages.encode_turn_away(4321, 600_000))
    assert heeded(broker)
    with every_user_reaches(broker), lingering() as one, lingering() as other, socket.socket(socket.AF_UNIX) as client:
        with asleep(broker):
            os.seteuid(4321)
            try:
                client.connect(os.fspath(broker.path))
            finally:
                os.seteuid(0)
            pass_on(client, (one, other))
        assert select.select([client], [], [], PATIENCE_S)[0]  # its end
        assert heeded(broker)


def test_who_waits_to_be_accepted_with_what_lingers_holds_up_no_end(start: Start) -> None:
    broker = start(max_connections=1)
    broker.ready()
    first, _ = broker.connect()
    with first, lingering() as one, socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(broker.path))  # beyond the bound
        pass_on(client, [one])
        broker.send(messages.encode_stop())
        assert heeded(broker)
        broker.sock.close()
        assert broker.process.wait(PATIENCE_S) == 0


def test_a_run_that_is_killed_before_it_has_a_cell_leaves_what_lingers(start: Start) -> None:
    broker = start(pool_min=1, pool_max=1, slot_count=1)
    broker.ready()
    with broker.connection() as connection, lingering() as one:
        busy = broker.prepare(connection, plan_for("/bin/true"))
        waiting = broker.prepare(
            connection, plan_for("/bin/true", sandbox="s-2"), fds=[broker.null, one.fileno(), broker.null]
        )
        os.close(one.detach())
        broker.kill(waiting)
        assert broker.of_run(waiting, PATIENCE_S).failed.stage
        assert heeded(broker)
        broker.call_off(busy)


def test_a_run_of_nobodys_leaves_what_lingers(broker: Broker) -> None:
    with lingering() as one:
        with asleep(broker):
            run = broker.prepare(77, plan_for("/bin/true"), fds=[broker.null, one.fileno(), broker.null])
            os.close(one.detach())
        assert broker.of_run(run, PATIENCE_S).failed.stage
        assert heeded(broker)


@pytest.mark.parametrize("place", [0, 64, 252])
def test_of_more_descriptors_than_it_takes_none_holds_it_up(broker: Broker, place: int) -> None:
    with broker.connection() as connection, lingering() as one:
        fds = [broker.null] * 252
        fds.insert(place, one.fileno())
        run = messages.encode_prepare(1000, connection, plan_for("/bin/true"), in_memfd=False)
        with asleep(broker):
            broker.send(run, fds)
            os.close(one.detach())
        assert "descriptors" in broker.of_run(1000, PATIENCE_S).failed.text
        assert heeded(broker)


def test_what_comes_with_more_than_a_packet_holds_up_no_end(broker: Broker) -> None:
    with lingering() as one:
        with asleep(broker):
            broker.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            broker.send(bytes(abi.MAX_PACKET + 1), [one.fileno()])
            os.close(one.detach())
        assert broker.process.wait(PATIENCE_S) != 0


def test_what_comes_out_of_band_is_read_with_what_it_carries(broker: Broker) -> None:
    """Read past, its descriptors would be closed by the kernel for whoever reads."""
    with lingering() as one, socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(broker.path))
        packet = broker.wait_for(lambda packet: packet.type == Message.CONN, PATIENCE_S)
        with socket.socket(fileno=packet.fds[0]) as server:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [one.fileno()]))]
            client.sendmsg([b"x"], rights, socket.MSG_OOB)
            client.send(b"yz")
            data, control, _, _ = server.recvmsg(3, 64)
            assert (data[:1], len(control)) == (b"x", 1)
            os.close(array.array("i", control[0][2])[0])
