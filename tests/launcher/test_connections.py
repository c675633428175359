"""Accepting: who connected is known from the kernel, and neither a crowd nor a deaf broker hurts."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from immured.isolation import messages
from immured.isolation.abi import Message
from tests.launcher.harness import Broker, eventually
from tests.patience import PATIENCE_S

Start = Callable[..., Broker]


def test_connections_are_numbered_and_never_twice(broker: Broker) -> None:
    numbers = []
    for _ in range(5):
        client, packet = broker.connect()
        client.close()
        broker.send(messages.encode_connection_closed(packet.id))
        numbers.append(packet.id)
    assert numbers == [1, 2, 3, 4, 5]


def test_the_descriptor_is_the_client(broker: Broker) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(broker.path))
        packet = broker.wait_for(lambda packet: packet.type == Message.CONN)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, packet.fds[0]) as server:
            server.send(b"hello")
            assert client.recv(5) == b"hello"


def test_the_peer_is_who_the_kernel_says(broker: Broker) -> None:
    script = "import os, socket, sys; os.setgroups([7, 8]); os.setgid(1234); os.setuid(4321)\n"
    script += "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); sys.stdin.read()"
    broker.path.parent.chmod(0o755)
    directory = os.open(broker.path.parent, os.O_PATH)
    with subprocess.Popen(
        [sys.executable, "-c", script, f"/proc/self/fd/{directory}/immured.sock"],
        stdin=subprocess.PIPE,
        pass_fds=[directory],
    ) as client:
        packet = broker.wait_for(lambda packet: packet.type == Message.CONN)
        peer = messages.parse_peer(packet.body)
        assert client.stdin is not None
        client.stdin.close()
    os.close(directory)
    os.close(packet.fds[0])
    assert (peer.uid, peer.gid, peer.groups, peer.pid) == (4321, 1234, (7, 8), client.pid)
    assert peer.exe == os.fsencode(Path(sys.executable).resolve())


def test_whose_process_is_gone_has_no_program(start: Start) -> None:
    broker = start(max_connections=1)
    broker.ready()
    first, taken = broker.connect()
    script = "import os, socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
    script += "sys.exit() if os.fork() else sys.stdin.read()"  # its child keeps the connection, which waits
    with subprocess.Popen([sys.executable, "-c", script, broker.path], stdin=subprocess.PIPE) as client:
        assert client.wait(PATIENCE_S) == 0
        first.close()
        broker.send(messages.encode_connection_closed(taken.id))
        packet = broker.wait_for(lambda packet: packet.type == Message.CONN)
        os.close(packet.fds[0])
        peer = messages.parse_peer(packet.body)
    assert (peer.pid, peer.exe) == (client.pid, b"")


def test_before_linux_6_5_the_number_must_be_the_users(launcher_of_old: Path, tmp_path: Path) -> None:
    """Nobody tells there whether the number was given anew; /proc tells whose it is now."""
    broker = Broker(launcher_of_old, tmp_path, max_connections=1)
    broker.ready()
    told = []
    # One who executed his program as who he is; then one whose number is another user's than connected.
    for user, script in ((4321, CONNECT), (0, f"os.seteuid(4321); {CONNECT}; os.seteuid(0)")):
        program = f"import os, socket, sys; s = socket.socket(socket.AF_UNIX); {script}; print(1); sys.stdin.read()"
        arguments = ["/usr/bin/python3", "-u", "-c", program, os.fspath(broker.path)]
        first, taken = broker.connect()
        with (
            first,
            every_user_reaches(broker),
            subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, user=user, cwd="/") as client,
        ):
            assert client.stdout is not None
            assert client.stdout.readline() == b"1\n"
            broker.send(messages.encode_connection_closed(taken.id))
            packet = broker.wait_for(lambda packet: packet.type == Message.CONN)
            os.close(packet.fds[0])
            told.append(messages.parse_peer(packet.body))
            broker.send(messages.encode_connection_closed(packet.id))
    broker.close()
    assert [peer.uid for peer in told] == [4321, 4321]
    assert [peer.exe for peer in told] == [os.fsencode(Path("/usr/bin/python3").resolve()), b""]


CONNECT = "s.connect(sys.argv[1])"


@contextlib.contextmanager
def every_user_reaches(broker: Broker) -> Iterator[None]:
    modes = {place: place.stat().st_mode for place in broker.path.parents if place.stat().st_mode & 0o011 != 0o011}
    for place, mode in modes.items():
        place.chmod(mode | 0o011)
    try:
        yield
    finally:
        for place, mode in modes.items():
            place.chmod(mode)


def heeded(broker: Broker) -> bool:
    """Once it has read all that was sent to it: it takes connections in between."""
    broker.send(messages.encode_count())
    return broker.wait_for(lambda packet: packet.type == Message.COUNTS, PATIENCE_S).type == Message.COUNTS


def let_go(broker: Broker, uid: int) -> bool:
    """Whether who connects as that user is let go, without a word to the broker."""
    with socket.socket(socket.AF_UNIX) as client:
        before = os.geteuid()
        os.seteuid(uid)
        try:
            client.connect(os.fspath(broker.path))
        finally:
            os.seteuid(before)
        if client in select.select([client, broker.sock], [], [], PATIENCE_S)[0]:
            assert client.recv(1) == b""
            with pytest.raises(TimeoutError):  # who is announced is so before the launcher's copy is closed
                broker.receive(timeout=0)
            return True
        packet = broker.receive(timeout=0)
    os.close(packet.fds[0])
    assert messages.parse_peer(packet.body).uid == uid
    return False


@pytest.fixture
def reachable(broker: Broker) -> Iterator[Broker]:
    """By every user."""
    with every_user_reaches(broker):
        yield broker


def test_a_user_is_turned_away_for_a_while_and_nobody_else(reachable: Broker) -> None:
    reachable.send(messages.encode_turn_away(4321, 600_000))
    assert heeded(reachable)
    assert not let_go(reachable, 1234)
    assert let_go(reachable, 4321)
    reachable.send(messages.encode_turn_away(4321, 1))
    deadline = time.monotonic() + PATIENCE_S
    while let_go(reachable, 4321):
        assert time.monotonic() < deadline


def test_of_too_many_who_are_turned_away_one_is_let_in_again(reachable: Broker) -> None:
    reachable.send(messages.encode_turn_away(5000, 500_000))  # the shortest
    for uid in range(5001, 5064):
        reachable.send(messages.encode_turn_away(uid, 600_000))
    assert heeded(reachable)
    assert let_go(reachable, 5000)
    reachable.send(messages.encode_turn_away(6000, 600_000))
    assert heeded(reachable)
    assert [let_go(reachable, uid) for uid in (5000, 5001, 5063, 6000)] == [False, True, True, True]


CONNECTS = "use Socket; socket(S, AF_UNIX, SOCK_STREAM, 0); connect(S, sockaddr_un($ARGV[0])) or die $!; <STDIN>"


@pytest.mark.parametrize("levels", [3, 20])
def test_a_program_is_told_whole_or_not_at_all(broker: Broker, tmp_path: Path, levels: int) -> None:
    """Cut short, a path of more than PATH_MAX bytes would be another program's."""
    place = os.open(tmp_path, os.O_PATH)
    for _ in range(levels):
        os.mkdir("d" * 250, dir_fd=place)
        inner = os.open("d" * 250, os.O_PATH, dir_fd=place)
        os.close(place)
        place = inner
    with Path("/usr/bin/perl").open("rb") as program:
        copy = os.open("program", os.O_CREAT | os.O_WRONLY, 0o755, dir_fd=place)
        os.sendfile(copy, program.fileno(), 0, 1 << 30)
        os.close(copy)
    arguments = [f"/proc/self/fd/{place}/program", "-e", CONNECTS, os.fspath(broker.path)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, pass_fds=[place]):
        packet = broker.wait_for(lambda packet: packet.type == Message.CONN)
        peer = messages.parse_peer(packet.body)
    os.close(place)
    os.close(packet.fds[0])
    whole = os.fsencode(tmp_path) + (b"/" + b"d" * 250) * levels + b"/program"
    assert peer.exe == (whole if levels == 3 else b"")


def test_a_launcher_keeps_no_copy_of_a_connection(broker: Broker) -> None:
    client, _ = broker.connect()
    with client:
        assert client.recv(1) == b""


def test_connections_beyond_the_limit_wait_until_one_is_closed(start: Start) -> None:
    broker = start(max_connections=2)
    broker.ready()
    clients = [broker.connect() for _ in range(2)]
    with socket.socket(socket.AF_UNIX) as third:
        third.connect(os.fspath(broker.path))
        with pytest.raises(TimeoutError):
            broker.receive(timeout=0.2)
        broker.send(messages.encode_connection_closed(clients[0][1].id))
        packet = broker.wait_for(lambda packet: packet.type == Message.CONN)
        os.close(packet.fds[0])
    for client, _ in clients:
        client.close()
    assert packet.id == 3


def test_a_broker_that_does_not_read_loses_nothing(start: Start) -> None:
    broker = start()
    broker.ready()
    clients = []
    for _ in range(1500):
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        try:
            client.connect(os.fspath(broker.path))
        except BlockingIOError:
            client.close()
            break
        clients.append(client)
    for number in range(1, len(clients) + 1):
        packet = broker.wait_for(lambda packet: packet.type == Message.CONN)
        assert packet.id == number
        os.close(packet.fds[0])
    for client in clients:
        client.close()


def test_a_deaf_broker_costs_no_processor_time(start: Start) -> None:
    broker = start()
    broker.ready()
    clients = []
    for _ in range(1500):
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        try:
            client.connect(os.fspath(broker.path))
        except BlockingIOError:
            client.close()
            break
        clients.append(client)

    def ticks() -> int:
        with open(f"/proc/{broker.process.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    def rests() -> bool:
        before = ticks()
        with pytest.raises(subprocess.TimeoutExpired):
            broker.process.wait(1.0)
        return ticks() - before <= 5

    assert eventually(rests)  # once it has done what there was to do
    for client in clients:
        client.close()
