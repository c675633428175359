"""Accepting: who connected is known from the kernel, and neither a crowd nor a deaf broker hurts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from immured.isolation import messages
from immured.isolation.abi import Message
from tests.launcher.harness import Broker

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

    with pytest.raises(subprocess.TimeoutExpired):
        broker.process.wait(0.3)
    before = ticks()
    with pytest.raises(subprocess.TimeoutExpired):
        broker.process.wait(1.0)
    assert ticks() - before <= 5
    for client in clients:
        client.close()
