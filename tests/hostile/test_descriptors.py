"""Descriptors whose file system, or peer, leaves whoever touches them without an answer."""

from __future__ import annotations

import array
import contextlib
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack
import pytest

from immured.client.throwaway import ThrowawayDaemon
from immured.wire.keys import PrivateKey
from tests.hostile.balking import FLUSH, GETATTR, BalkingMount
from tests.hostile.raw import Connection, command, sealed
from tests.lingering import lingering
from tests.patience import until


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[BalkingMount]:
    with BalkingMount(tmp_path) as mounted:
        yield mounted


@pytest.fixture
def answered(daemon: ThrowawayDaemon, admin: PrivateKey) -> Callable[[], bool]:
    """Whether somebody else's honest run is answered, now."""

    def ask() -> bool:
        with Connection(daemon) as other:
            return other.ask(command(other.daemon_id), admin)["ok"] is True

    return ask


def test_a_file_that_cannot_be_closed_holds_up_nobody_else(
    connection: Connection, mount: BalkingMount, answered: Callable[[], bool]
) -> None:
    fd = os.open(mount.file, os.O_RDONLY)
    mount.ignored = {FLUSH}
    connection.frame(b"no envelope", [fd])
    assert answered()


@contextlib.contextmanager
def somebody(uid: int) -> Iterator[None]:
    """Connections that are made meanwhile are that user's."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


def test_who_passes_what_cannot_be_closed_passes_no_more_of_it(
    daemon: ThrowawayDaemon, mount: BalkingMount, answered: Callable[[], bool]
) -> None:
    fd = os.open(mount.file, os.O_RDONLY)
    mount.ignored = {FLUSH}
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            with somebody(12_345):
                stranger = stack.enter_context(Connection(daemon))
            stranger.frame(b"no envelope", [fd, fd, fd])
        assert answered()
        links = []
        for entry in Path(f"/proc/{daemon.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                links.append(os.readlink(entry))
        assert links.count(str(mount.file)) < 20


def test_a_file_that_cannot_be_looked_at_is_refused(
    connection: Connection, admin: PrivateKey, mount: BalkingMount
) -> None:
    fd = os.open(mount.file, os.O_RDONLY)
    mount.ignored = {GETATTR}
    connection.frame(
        sealed(msgpack.packb(command(connection.daemon_id, args={"argv": ["/bin/true"], "fds": [0]})), [admin]), [fd]
    )
    reply = connection.reply()
    assert reply is not None
    assert reply["error"]["code"] == "bad_descriptor"


@contextlib.contextmanager
def asleep(daemon: ThrowawayDaemon) -> Iterator[None]:
    """What is sent and closed meanwhile is there, and closed, when it wakes up."""
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        until(lambda: Path(f"/proc/{daemon.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T")
        yield
    finally:
        os.kill(daemon.pid, signal.SIGCONT)


@pytest.mark.parametrize("place", ["first", "inside", "never read", "out of band"])
def test_a_socket_that_lingers_holds_up_nobody_else(
    daemon: ThrowawayDaemon, connection: Connection, answered: Callable[[], bool], place: str
) -> None:
    before = {
        "first": b"",
        "inside": struct.pack(">I", 100) + bytes(10),
        "never read": bytes(4),
        "out of band": struct.pack(">I", 100),
    }
    # Of several bytes the last alone would be out of band, and the descriptors with the first; and of two the second.
    data, flags, count = (b"x", socket.MSG_OOB, 1) if place == "out of band" else (bytes(10), 0, 2)
    with lingering() as one, lingering() as other:
        with asleep(daemon):
            if before[place]:
                connection.send(before[place])
            for passed in (one, other)[:count]:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [passed.fileno()]))]
                connection.socket.sendmsg([data], rights, flags)
                os.close(passed.detach())
            connection.send(bytes(10))  # who reads it has passed what is out of band
        assert answered()
