"""The launcher's client, for sandboxes that live and for what lived before it; the launcher is played."""

from __future__ import annotations

import array
import asyncio
import errno
import os
import signal
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from immured.errors import ConfigurationError
from immured.isolation import abi, messages
from immured.isolation.abi import Cause, Clerk, KeptKind, Message
from immured.isolation.launcher import KeptFds, Launcher, LauncherLostError
from immured.isolation.messages import Exited, Failed
from tests.descriptors import descriptors
from tests.isolation.test_launcher import FAILED, Scene, close, exited, play, within
from tests.patience import PATIENCE_S

S, E = 7, 8


def kept(sandbox: int, kind: KeptKind, execs: int = 0) -> bytes:
    return struct.pack("=QIIIIQQ", sandbox, kind, execs, 1, 1, 5_000, 9_000)


def live(scene: Scene, number: int = S) -> tuple[Awaitable[bool], Awaitable[object]]:
    record = os.memfd_create("record")
    creation = scene.launcher.create(number, 3, b"plan", record)
    os.close(record)
    kind, heard, body, fds = scene.hear()
    assert (kind, heard, body) == (Message.CREATE, number, struct.pack("=QII", 3, 4, 0) + b"plan")
    assert len(fds) == 1
    close(fds)
    scene.end(Message.CREATED, number)
    return creation.created, creation.ended


def test_a_sandbox_is_made_and_ends() -> None:
    async def act(scene: Scene) -> None:
        created, ended = live(scene)
        assert await within(created) is True
        scene.launcher.kill(S, Cause.TIMEOUT)
        assert scene.hear()[:3] == (Message.KILL, S, struct.pack("=II", Cause.TIMEOUT, 0))
        scene.end(Message.EXITED, S, exited())
        assert isinstance((await within(ended)).report, Exited)  # type: ignore[attr-defined]

    play(act)


def test_a_sandbox_that_never_lived_was_not_created() -> None:
    async def act(scene: Scene) -> None:
        record = os.memfd_create("record")
        creation = scene.launcher.create(S, 0, b"plan", record)
        os.close(record)
        close(scene.hear()[3])
        scene.end(Message.FAILED, S, FAILED)
        assert await within(creation.created) is False
        assert isinstance((await within(creation.ended)).report, Failed)

    play(act)


def test_an_exec_is_a_run_in_a_sandbox() -> None:
    async def act(scene: Scene) -> None:
        await within(live(scene)[0])
        answer = scene.launcher.exec(E, S, b"plan", (0, 1, 2), ours=(1,))
        kind, number, body, fds = scene.hear()
        assert (kind, number, body) == (Message.EXEC, E, struct.pack("=QII", S, 4, abi.OURS_0 << 1) + b"plan")
        scene.launcher.go(E)
        assert os.read(fds[3], 2) == b"g"
        close(fds)
        scene.end(Message.EXITED, E, exited())
        assert isinstance((await within(answer)).report, Exited)

    play(act)


def test_a_kept_exec_takes_its_log_along() -> None:
    async def act(scene: Scene) -> None:
        await within(live(scene)[0])
        given = KeptFds(os.memfd_create("log"), os.eventfd(0), *os.pipe(), os.memfd_create("stdin"))
        _ = scene.launcher.exec(E, S, b"plan", (0, 1, 2), kept=given)
        *_, body, fds = scene.hear()
        assert struct.unpack_from("=QII", body)[2] == abi.EXEC_KEPT
        assert [os.fstat(fd).st_ino for fd in fds[4:]] == [os.fstat(fd).st_ino for fd in given.all()]
        close([*fds, *given.all()])

    play(act)


def test_a_terminal_is_its_askers_whenever_he_asks() -> None:
    async def act(scene: Scene) -> None:
        await within(live(scene)[0])
        for number, early in ((E, True), (E + 1, False)):
            _ = scene.launcher.exec(number, S, b"plan", (0, 1, 2))
            close(scene.hear()[3])
            master = os.memfd_create("terminal")
            if early:
                waiting = scene.launcher.terminal(number)
                scene.end(Message.TERMINAL, number, b"", (master,))
            else:
                scene.end(Message.TERMINAL, number, b"", (master,))
                await asyncio.sleep(0.05)
                waiting = scene.launcher.terminal(number)
            got = await within(waiting)
            assert os.fstat(got).st_ino == os.fstat(master).st_ino
            with pytest.raises(LookupError):
                _ = scene.launcher.terminal(number)
            close([master, got])

    play(act)


def test_a_terminal_that_nobody_asked_for_is_closed() -> None:
    async def act(scene: Scene) -> None:
        await within(live(scene)[0])
        answer = scene.launcher.exec(E, S, b"plan", (0, 1, 2))
        close(scene.hear()[3])
        scene.launcher.go(E)
        master = os.memfd_create("terminal")
        scene.end(Message.TERMINAL, E, b"", (master,))
        os.close(master)
        scene.end(Message.EXITED, E, exited())
        await within(answer)

    play(act)  # which counts the descriptors


def test_an_exec_without_a_terminal_says_so_at_its_end() -> None:
    async def act(scene: Scene) -> None:
        await within(live(scene)[0])
        _ = scene.launcher.exec(E, S, b"plan", (0, 1, 2))
        close(scene.hear()[3])
        waiting = scene.launcher.terminal(E)
        scene.end(Message.FAILED, E, FAILED)
        with pytest.raises(LookupError):
            await within(waiting)

    play(act)


def test_answers_come_in_the_order_of_the_questions() -> None:
    async def act(scene: Scene) -> None:
        await within(live(scene)[0])
        first, second = scene.launcher.freeze(S, True), scene.launcher.freeze(S, False)
        assert scene.hear()[2] == struct.pack("=II", 1, 0)
        assert scene.hear()[2] == struct.pack("=II", 0, 0)
        scene.end(Message.FROZEN, S, struct.pack("=II", 1, 0))
        await within(first)
        scene.end(Message.FROZEN, S, struct.pack("=II", 1, errno.EBUSY))
        with pytest.raises(OSError, match="busy") as refused:
            await within(second)
        assert refused.value.errno == errno.EBUSY

    play(act)


def test_many_who_want_figures_cost_one_question() -> None:
    async def act(scene: Scene) -> None:
        await within(live(scene)[0])
        answers = [scene.launcher.measure(S) for _ in range(3)]
        assert scene.hear()[:2] == (Message.MEASURE, S)
        scene.end(
            Message.MEASURES, S, struct.pack("=IIii14Q", 0, 3, 0, 0, *range(14)) + struct.pack("=5Q", 1, 2, 3, 4, 5)
        )
        for answer in answers:
            measures = await within(answer)
            assert (measures.so_far.wall_ns, measures.memory_now, measures.disk_files) == (0, 1, 5)
        scene.launcher.extend(S, 77)
        assert scene.hear()[:3] == (Message.EXTEND, S, struct.pack("=Q", 77))  # and nothing between

    play(act)


def test_a_sandbox_that_ends_owes_no_answer() -> None:
    async def act(scene: Scene) -> None:
        created, _ = live(scene)
        await within(created)
        waiting = [scene.launcher.freeze(S, True), scene.launcher.measure(S)]
        scene.end(Message.EXITED, S, exited())
        for one in waiting:
            with pytest.raises(LookupError):
                await within(one)
        for ask in (
            lambda: scene.launcher.freeze(S, True),
            lambda: scene.launcher.measure(S),
            lambda: scene.launcher.extend(S, 1),
            lambda: scene.launcher.ask(S, Clerk.FILES, 0),
        ):
            with pytest.raises(LookupError):
                ask()

    play(act)


def test_a_clerk_is_at_the_other_end() -> None:
    async def act(scene: Scene) -> None:
        await within(live(scene)[0])
        with scene.launcher.ask(S, Clerk.CHANGES, 3) as ours:
            kind, number, body, [fd] = scene.hear()
            assert (kind, number, body) == (Message.ASK, S, struct.pack("=QII", 3, Clerk.CHANGES, 0))
            with socket.socket(fileno=fd) as theirs:
                ours.send(b"a question")
                assert theirs.recv(100) == b"a question"

    play(act)


def test_signals_sizes_and_ends_of_stdin_go_to_who_lives() -> None:
    async def act(scene: Scene) -> None:
        await within(live(scene)[0])
        _ = scene.launcher.exec(E, S, b"plan", (0, 1, 2))
        close(scene.hear()[3])
        scene.launcher.signal(99, 9)
        scene.launcher.signal(E, signal.SIGINT)
        scene.launcher.signal(E, signal.SIGTERM, True)
        scene.launcher.resize(E, 24, 80)
        scene.launcher.close_stdin(E)
        assert [scene.hear()[:3] for _ in range(4)] == [
            (Message.SIGNAL, E, struct.pack("=II", 2, 0)),
            (Message.SIGNAL, E, struct.pack("=II", 15, 1)),
            (Message.RESIZE, E, struct.pack("=HHI", 24, 80, 0)),
            (Message.CLOSE_STDIN, E, b""),
        ]

    play(act)


def test_numbers_are_never_those_of_another_broker() -> None:
    seen: list[int] = []

    async def act(scene: Scene) -> None:
        seen.extend(scene.launcher.new_number() for _ in range(3))

    for _ in range(3):
        play(act)
    assert len(set(seen)) == 9
    assert len({number >> 32 for number in seen}) == 3
    assert all(0 < number >> 32 < 1 << 31 for number in seen)


# -- what lived before


class Survivor:
    """A launcher that waits at `control`, and what it says of who lives."""

    def __init__(self, directory: Path) -> None:
        self.control = directory / "launcher.sock"
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listening.bind(os.fspath(self.control))
        self.listening.listen()
        self.ends, self.wardens = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.theirs: socket.socket | None = None

    def close(self) -> None:
        for one in (self.listening, self.ends, self.wardens, self.theirs):
            if one is not None:
                one.close()

    def ready(self, *sandboxes: int, version: int = abi.PROTOCOL_VERSION) -> None:
        self.theirs, _ = self.listening.accept()
        head = struct.pack("=8I", version, 1, 4, 0x70000000, 10, 1, len(sandboxes), 0)
        body = head + struct.pack(f"={len(sandboxes)}Q", *sandboxes) + b"/sys/fs/cgroup/x"
        self._say(self.theirs, Message.READY, 0, body, (self.ends.fileno(),))

    def tell(self, kind: int, number: int, body: bytes, fds: tuple[int, ...] = ()) -> None:
        self._say(self.wardens, kind, number, body, fds)

    @staticmethod
    def _say(way: socket.socket, kind: int, number: int, body: bytes, fds: tuple[int, ...]) -> None:
        data = messages.HEADER.pack(kind, messages.HEADER.size + len(body), number) + body
        way.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])


def meet(directory: Path, act: Callable[[Survivor, Awaitable[Launcher | None]], Awaitable[None]]) -> None:
    """With a survivor, and somebody who is about to find it; no descriptor is left."""

    async def whole() -> None:
        survivor = Survivor(directory)
        finding = asyncio.ensure_future(
            Launcher.find(
                survivor.control, on_connection=lambda _: None, on_lost=lambda _: None, ready_timeout=PATIENCE_S
            )
        )
        await asyncio.sleep(0.05)
        try:
            await act(survivor, finding)
        finally:
            survivor.close()
            if finding.done() and not finding.cancelled() and finding.exception() is None:
                launcher = finding.result()
                if launcher is not None:
                    await launcher.close()

    before = descriptors()
    asyncio.run(whole())
    assert descriptors() - before == set()


def memory(text: bytes) -> int:
    fd = os.memfd_create("memory")
    os.write(fd, text)
    return fd


def test_what_is_kept_is_told_and_adopted(tmp_path: Path) -> None:
    async def act(survivor: Survivor, finding: Awaitable[Launcher | None]) -> None:
        survivor.ready(S)
        own = [memory(b"%d" % number) for number in range(6)]
        before = time.monotonic_ns()
        survivor.tell(Message.KEPT, S, kept(S, KeptKind.SANDBOX, 1), (own[0],))
        survivor.tell(Message.KEPT, E, kept(S, KeptKind.EXEC), tuple(own[1:]))
        launcher = await within(finding)
        assert launcher is not None
        assert not launcher.ours
        heard = time.monotonic_ns()
        [sandbox] = launcher.kept
        [one] = sandbox.execs
        assert (sandbox.number, sandbox.frozen) == (S, True)
        assert before <= sandbox.ends_ns - 9_000 <= heard  # however late it is adopted
        assert (one.number, one.started, one.started_ns) == (E, True, 5_000)
        texts = [os.pread(fd, 9, 0) for fd in (sandbox.record, one.log, one.event, one.stdin)]
        assert texts == [b"0", b"1", b"2", b"5"]
        ends = [launcher.adopt(number) for number in (S, E)]
        launcher.adopted_all()
        with pytest.raises(LookupError):
            _ = launcher.adopt(S)
        survivor.tell(Message.EXITED, E, exited())
        survivor.tell(Message.EXITED, S, exited())
        for end in ends:
            assert isinstance((await within(end)).report, Exited)
        close([*own, sandbox.record, one.log, one.event, one.stdin])

    meet(tmp_path, act)


def test_ends_that_nobody_heard_are_held_until_somebody_asks(tmp_path: Path) -> None:
    async def act(survivor: Survivor, finding: Awaitable[Launcher | None]) -> None:
        survivor.ready(S)
        survivor.tell(Message.EXITED, 5, exited())
        survivor.tell(Message.EXITED, S, exited())  # named, and then it ended
        launcher = await within(finding)
        assert launcher is not None
        assert launcher.kept == ()
        assert launcher.told == {5, S}
        assert isinstance((await within(launcher.adopt(5))).report, Exited)
        launcher.adopted_all()
        assert launcher.told == frozenset()
        with pytest.raises(LookupError):
            _ = launcher.adopt(S)

    meet(tmp_path, act)


def test_an_exec_that_ended_while_it_was_told_of_is_not_waited_for(tmp_path: Path) -> None:
    async def act(survivor: Survivor, finding: Awaitable[Launcher | None]) -> None:
        survivor.ready(S)
        own = [memory(b"") for _ in range(6)]
        survivor.tell(Message.EXITED, E, exited())
        survivor.tell(Message.KEPT, S, kept(S, KeptKind.SANDBOX, 1), (own[0],))
        survivor.tell(Message.KEPT, E, kept(S, KeptKind.EXEC), tuple(own[1:]))
        launcher = await within(finding)
        assert launcher is not None
        [sandbox] = launcher.kept
        assert sandbox.execs == ()
        assert launcher.told == {E}
        close([*own, sandbox.record])

    meet(tmp_path, act)


def test_what_lives_on_is_left_without_a_word(tmp_path: Path) -> None:
    """Its end is another broker's to hear: nobody here is told that it was lost."""

    async def act(survivor: Survivor, finding: Awaitable[Launcher | None]) -> None:
        survivor.ready(S)
        own = memory(b"")
        survivor.tell(Message.KEPT, S, kept(S, KeptKind.SANDBOX), (own,))
        launcher = await within(finding)
        assert launcher is not None
        end = asyncio.ensure_future(launcher.adopt(S))
        run = launcher.prepare(9, 0, b"plan", (0, 1, 2))
        await launcher.close()
        with pytest.raises(LauncherLostError):
            await within(run)
        await asyncio.sleep(0.05)
        assert not end.done()
        end.cancel()
        assert survivor.theirs is not None
        heard = messages.HEADER.unpack_from(survivor.theirs.recv(1000))[0]
        assert (heard, survivor.theirs.recv(1000)) == (Message.PREPARE, b"")  # no KILL
        close([own, *(one.record for one in launcher.kept)])

    meet(tmp_path, act)


def test_of_ones_own_launcher_nothing_lives_on() -> None:
    async def act(scene: Scene) -> None:
        created, ended = live(scene)
        await within(created)
        closing = asyncio.ensure_future(scene.launcher.close())
        await asyncio.sleep(0.05)
        assert scene.hear()[:2] == (Message.KILL, S)
        scene.process.kill()
        await within(closing)
        with pytest.raises(LauncherLostError):
            await within(ended)

    play(act)


def test_a_launcher_of_another_protocol_is_named(tmp_path: Path) -> None:
    async def act(survivor: Survivor, finding: Awaitable[Launcher | None]) -> None:
        survivor.ready(version=abi.PROTOCOL_VERSION + 1)
        with pytest.raises(ConfigurationError, match="speaks protocol") as refused:
            await within(finding)
        assert refused.value.code == "launcher_failed"

    meet(tmp_path, act)


def test_one_that_is_about_to_end_is_none(tmp_path: Path) -> None:
    async def act(survivor: Survivor, finding: Awaitable[Launcher | None]) -> None:
        survivor.listening.close()
        assert await within(finding) is None

    meet(tmp_path, act)


@pytest.mark.parametrize("left", ["nothing", "a socket that nobody listens at"])
def test_where_nobody_lives_nobody_is_found(tmp_path: Path, left: str) -> None:
    control = tmp_path / "launcher.sock"
    if left != "nothing":
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
            dead.bind(os.fspath(control))

    async def find() -> Launcher | None:
        return await Launcher.find(control, on_connection=lambda _: None, on_lost=lambda _: None)

    before = descriptors()
    assert asyncio.run(find()) is None
    assert descriptors() - before == set()
