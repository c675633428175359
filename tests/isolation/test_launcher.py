"""The launcher's client, against a launcher that the test plays over a real socket pair."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pytest

from immured.errors import ConfigurationError
from immured.isolation import abi, messages
from immured.isolation.abi import Cause, Message, Stage
from immured.isolation.launcher import Connection, Launcher, LauncherLostError, Outcome, Settings
from immured.isolation.messages import Exited, Failed
from immured.isolation.sealed import sealed_memfd
from tests.descriptors import descriptors
from tests.patience import PATIENCE_S

T = TypeVar("T")
READY = struct.pack("=8I", abi.PROTOCOL_VERSION, 1 | 16, 4, 0x70000000, 10, 1, 0, 0) + b"/sys/fs/cgroup/x"
FAILED = struct.pack("=IIiI", Stage.OPEN, 4, 13, 0) + b"/srv: Permission denied"


def exited(collected: int = 0) -> bytes:
    return struct.pack("=IIii14Q", Cause.EXITED, 0, os.CLD_EXITED, 0, *[0] * 13, collected)


class Scene:
    """A client, and the other end of its socket. The process that it takes for the launcher only sleeps."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ends, self.wardens = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process = subprocess.Popen(["sleep", "1000"])
        self.connections: list[Connection] = []
        self.lost: list[str] = []
        self.launcher = Launcher(
            ours, self.process.pid, on_connection=self.connections.append, on_lost=self.lost.append
        )

    def ready(self) -> None:
        self.say(Message.READY, 0, READY, (self.ends.fileno(),))

    def say(self, kind: int, number: int = 0, body: bytes = b"", fds: tuple[int, ...] = ()) -> None:
        self._say(self.theirs, kind, number, body, fds)

    def end(self, kind: int, number: int = 0, body: bytes = b"", fds: tuple[int, ...] = ()) -> None:
        """A warden's word."""
        self._say(self.wardens, kind, number, body, fds)

    def _say(self, way: socket.socket, kind: int, number: int, body: bytes, fds: tuple[int, ...]) -> None:
        data = messages.HEADER.pack(kind, messages.HEADER.size + len(body), number) + body
        socket.send_fds(way, [data], fds)

    def hear(self) -> tuple[int, int, bytes, list[int]]:
        data, fds, _, _ = socket.recv_fds(self.theirs, abi.MAX_PACKET, 16)
        kind, length, number = messages.HEADER.unpack_from(data)
        assert length == len(data)
        return kind, number, data[messages.HEADER.size :], fds

    def start(self, run: int = 1) -> Awaitable[Outcome]:
        """Prepared, and let go."""
        answer = self.launcher.prepare(run, 0, b"plan", (0, 1, 2))
        *_, gate = fds = self.hear()[3]
        self.launcher.go(run)
        assert os.read(gate, 2) == b"g"
        assert os.read(gate, 2) == b""
        close(fds)
        return answer


def close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - what is awaited has no event of its own
            await asyncio.sleep(0.001)


async def within(answer: Awaitable[T]) -> T:
    async with asyncio.timeout(PATIENCE_S):
        return await answer


def play(act: Callable[[Scene], Awaitable[None]]) -> None:
    """READY, then the act; then everything is closed and reaped, and no descriptor is left."""

    async def whole() -> None:
        scene = Scene()
        try:
            scene.ready()
            await until(lambda: scene.launcher._facts)
            await act(scene)
        finally:
            scene.process.kill()
            await scene.launcher.close()
            scene.process.returncode = 0  # the client has reaped it
            scene.theirs.close()
            scene.wardens.close()
            scene.ends.close()
            for connection in scene.connections:
                connection.sock.close()

    before = descriptors()
    asyncio.run(whole())
    assert descriptors() - before == set()


def test_ready_says_what_the_host_gives() -> None:
    async def act(scene: Scene) -> None:
        facts = scene.launcher.facts
        assert (facts.controllers, facts.landlock_abi, facts.swap) == (frozenset({"cpu", "kill"}), 4, True)
        assert (facts.slot_base, facts.slot_count, facts.cgroup) == (0x70000000, 10, "/sys/fs/cgroup/x")

    play(act)


def test_a_connection_comes_with_who_made_it() -> None:
    async def act(scene: Scene) -> None:
        near, far = socket.socketpair()
        with near, far:
            scene.say(Message.CONN, 7, struct.pack("=IIiI2I", 1000, 1001, 42, 2, 4, 24) + b"/bin/x", (far.fileno(),))
            await until(lambda: scene.connections)
            (connection,) = scene.connections
            near.send(b"x")
            assert connection.sock.recv(1) == b"x"
        peer = connection.peer
        assert (connection.number, peer.uid, peer.gid, peer.pid, peer.groups) == (7, 1000, 1001, 42, (4, 24))
        assert peer.exe == b"/bin/x"

    play(act)


def test_a_connections_descriptor_does_not_survive_an_exec() -> None:
    async def act(scene: Scene) -> None:
        near, far = socket.socketpair()
        with near, far:
            scene.say(Message.CONN, 7, struct.pack("=IIiI", 0, 0, 1, 0), (far.fileno(),))
            await until(lambda: scene.connections)
        assert fcntl.fcntl(scene.connections[0].sock, fcntl.F_GETFD) & fcntl.FD_CLOEXEC

    play(act)


def test_a_connection_without_its_descriptor_is_given_back() -> None:
    async def act(scene: Scene) -> None:
        scene.say(Message.CONN, 7, struct.pack("=IIiI", 0, 0, 1, 0))
        await until(lambda: readable(scene))
        assert scene.hear()[:2] == (Message.CONN_CLOSED, 7)

    play(act)


def readable(scene: Scene) -> bool:
    try:
        return bool(scene.theirs.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return False


def test_a_small_plan_travels_in_its_packet() -> None:
    async def act(scene: Scene) -> None:
        _ = scene.launcher.prepare(1, 7, b"plan", (0, 1, 2))
        kind, run, body, fds = scene.hear()
        close(fds)
        assert (kind, run, struct.unpack_from("=QII", body), body[16:]) == (Message.PREPARE, 1, (7, 4, 0), b"plan")
        assert len(fds) == 4

    play(act)


def test_a_large_plan_travels_sealed() -> None:
    plan = b"p" * 70_000

    async def act(scene: Scene) -> None:
        _ = scene.launcher.prepare(1, 7, plan, (0, 1, 2))
        _, _, body, fds = scene.hear()
        try:
            assert struct.unpack_from("=QII", body) == (7, len(plan), abi.PLAN_IN_MEMFD)
            assert os.read(fds[0], 100_000) == plan
            seals = fcntl.fcntl(fds[0], fcntl.F_GET_SEALS)
            assert seals & fcntl.F_SEAL_WRITE
            assert seals & fcntl.F_SEAL_SHRINK
            assert len(fds) == 5
        finally:
            close(fds)

    play(act)


def test_go_is_a_byte_in_the_runs_own_pipe_and_a_kill_names_it() -> None:
    async def act(scene: Scene) -> None:
        _ = scene.start(5)
        scene.launcher.kill(5, Cause.TIMEOUT)
        kind, run, body, _ = scene.hear()
        assert (kind, run, struct.unpack("=II", body)[0]) == (Message.KILL, 5, Cause.TIMEOUT)

    play(act)


def test_go_for_a_run_whose_cell_is_gone_changes_nothing() -> None:
    async def act(scene: Scene) -> None:
        answer = scene.launcher.prepare(1, 0, b"plan", (0, 1, 2))
        close(scene.hear()[3])
        scene.launcher.go(1)
        scene.end(Message.FAILED, 1, FAILED)
        assert isinstance((await within(answer)).report, Failed)

    play(act)


def test_a_run_that_cannot_be_prepared_answers_with_why() -> None:
    async def act(scene: Scene) -> None:
        answer = scene.launcher.prepare(1, 0, b"plan", (0, 1, 2))
        close(scene.hear()[3])
        scene.say(Message.FAILED, 1, FAILED)
        assert (await within(answer)).report == Failed(Stage.OPEN, 4, 13, "/srv: Permission denied")
        assert scene.launcher.runs == frozenset()

    play(act)


def test_an_outcome_brings_what_was_collected_by_its_index() -> None:
    async def act(scene: Scene) -> None:
        answer = scene.start()
        first, third = sealed_memfd("first", b"first"), sealed_memfd("third", b"third")
        scene.end(Message.EXITED, 1, exited(0b101), (first, third))
        close([first, third])
        with await within(answer) as found:
            assert isinstance(found.report, Exited)
            assert {index: os.read(fd, 10) for index, fd in found.files.items()} == {0: b"first", 2: b"third"}

    play(act)


def test_an_exec_that_fails_is_told_by_the_warden() -> None:
    async def act(scene: Scene) -> None:
        answer = scene.start()
        scene.end(Message.FAILED, 1, FAILED)
        assert isinstance((await within(answer)).report, Failed)

    play(act)


@pytest.mark.parametrize("gone", [True, False])
def test_a_lost_warden_is_a_kill_where_its_payload_may_have_run(gone: bool) -> None:
    async def act(scene: Scene) -> None:
        if gone:
            answer = scene.start()
        else:
            answer = scene.launcher.prepare(1, 0, b"plan", (0, 1, 2))
            close(scene.hear()[3])
        scene.say(Message.FAILED, 1, struct.pack("=IIiI", Stage.LOST, 2**32 - 1, 0, 0) + b"killed by signal 9")
        report = (await within(answer)).report
        if gone:
            assert isinstance(report, Exited)
            assert (report.cause, report.measured) == (Cause.KILLED, 0)
        else:
            assert isinstance(report, Failed)
            assert report.stage is Stage.LOST

    play(act)


def test_what_the_launcher_says_after_the_warden_is_dropped() -> None:
    async def act(scene: Scene) -> None:
        answer = scene.start()
        scene.end(Message.EXITED, 1, exited())
        assert isinstance((await within(answer)).report, Exited)
        scene.say(Message.FAILED, 1, FAILED)
        _ = scene.start(2)
        assert scene.lost == []

    play(act)


def test_an_outcome_stands_though_its_warden_died_right_after_it() -> None:
    """The launcher's socket was readable first, and holds the loss by the time that it is read."""

    async def act(scene: Scene) -> None:
        answer = scene.start()
        scene.say(Message.FAILED, 99, FAILED)  # nobody's
        scene.end(Message.EXITED, 1, exited())
        scene.say(Message.FAILED, 1, struct.pack("=IIiI", Stage.LOST, 2**32 - 1, 0, 0) + b"killed by signal 9")
        with await within(answer) as outcome:
            assert isinstance(outcome.report, Exited)
            assert outcome.report.cause is Cause.EXITED

    play(act)


def test_an_outcome_without_go_ends_the_trust() -> None:
    async def act(scene: Scene) -> None:
        _ = scene.launcher.prepare(1, 0, b"plan", (0, 1, 2))
        close(scene.hear()[3])
        scene.end(Message.EXITED, 1, exited())
        await until(lambda: scene.lost)

    play(act)


def test_descriptors_of_an_outcome_whose_waiter_left_are_closed() -> None:
    async def act(scene: Scene) -> None:
        asyncio.ensure_future(scene.start()).cancel()
        fd = sealed_memfd("late", b"")
        scene.end(Message.EXITED, 1, exited(1), (fd,))
        os.close(fd)
        await until(lambda: not scene.launcher.runs)

    play(act)


def test_what_the_socket_does_not_take_waits_in_order() -> None:
    async def act(scene: Scene) -> None:
        for number in range(3000):
            scene.launcher.connection_closed(number)
        heard: list[int] = []
        while len(heard) < 3000:
            await asyncio.sleep(0)
            with suppress(BlockingIOError):
                while True:
                    data = scene.theirs.recv(64, socket.MSG_DONTWAIT)
                    heard.append(messages.HEADER.unpack(data)[2])
        assert heard == list(range(3000))

    play(act)


def test_descriptors_that_wait_may_be_closed_by_the_caller() -> None:
    async def act(scene: Scene) -> None:
        for number in range(3000):
            scene.launcher.connection_closed(number)
        fds = [sealed_memfd("stream", b"%d" % index) for index in range(3)]
        _ = scene.launcher.prepare(1, 0, b"plan", fds)
        close(fds)
        scene.theirs.setblocking(False)
        found: list[int] = []
        while not found:
            await asyncio.sleep(0)
            with suppress(BlockingIOError):
                _, found, _, _ = socket.recv_fds(scene.theirs, 100, 8)
        assert [os.read(fd, 10) for fd in found[:3]] == [b"0", b"1", b"2"]
        close(found)

    play(act)


def test_whoever_waits_when_the_launcher_dies_is_told() -> None:
    async def act(scene: Scene) -> None:
        running = scene.start(1)
        preparing = scene.launcher.prepare(2, 0, b"plan", (0, 1, 2))
        close(scene.hear()[3])
        scene.process.kill()
        for answer in (running, preparing):
            with pytest.raises(LauncherLostError, match="ended by signal 9"):
                await within(answer)
        assert scene.lost == ["the launcher ended by signal 9"]

    play(act)


def test_nothing_can_be_prepared_once_it_is_lost() -> None:
    async def act(scene: Scene) -> None:
        scene.process.kill()
        await until(lambda: scene.lost)
        with pytest.raises(LauncherLostError):
            _ = scene.launcher.prepare(1, 0, b"plan", (0, 1, 2))

    play(act)


def test_what_it_said_before_it_died_is_heard() -> None:
    async def act(scene: Scene) -> None:
        answer = scene.start()
        scene.end(Message.EXITED, 1, exited())
        scene.process.kill()
        assert isinstance((await within(answer)).report, Exited)

    play(act)


@pytest.mark.parametrize(
    ("kind", "body"),
    [(99, b""), (Message.EXITED, exited()), (Message.FAILED, struct.pack("=IIiI", 77, 0, 0, 0)), (Message.CONN, b"")],
)
def test_what_the_protocol_does_not_hold_ends_the_trust(kind: int, body: bytes) -> None:
    async def act(scene: Scene) -> None:
        scene.say(kind, 1, body)
        await until(lambda: scene.lost)

    play(act)


def test_stopping_on_purpose_is_no_loss() -> None:
    lost: list[str] = []

    async def act(scene: Scene) -> None:
        os.kill(scene.process.pid, signal.SIGTERM)
        await scene.launcher.close()
        lost.extend(scene.lost)

    play(act)
    assert lost == []


def spawn(executable: str) -> None:
    async def whole(lock_fd: int) -> None:
        await Launcher.spawn(
            Path(executable),
            Settings(
                socket=Path("/nonexistent/socket"),
                slot_base=1 << 30,
                slot_count=1,
                cgroup=None,
                locks=(lock_fd,),
                pool_min=0,
                pool_max=1,
            ),
            on_connection=lambda _: None,
            on_lost=lambda _: None,
            ready_timeout=PATIENCE_S,
        )

    before = descriptors()
    try:
        with open("/dev/null") as lock:
            asyncio.run(whole(lock.fileno()))
    finally:
        assert descriptors() - before == set()


@pytest.mark.parametrize(
    ("executable", "message"),
    [
        ("/nonexistent", "/nonexistent: No such file or directory"),
        ("/dev", "/dev: Is a directory"),
        ("/bin/true", "the launcher did not start: the launcher ended with status 0"),
        ("/bin/false", "the launcher did not start: the launcher ended with status 1"),
    ],
)
def test_a_launcher_that_does_not_start_is_a_configuration_error(executable: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as failed:
        spawn(executable)
    assert (failed.value.code, failed.value.message) == ("launcher_failed", message)
