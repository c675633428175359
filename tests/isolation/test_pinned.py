"""What a run is about to execute: as its warden tells it, and whether its manifest is for it."""

from __future__ import annotations

import contextlib
import os
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immured.errors import Refused
from immured.host.facts import HostFacts
from immured.isolation import abi
from immured.isolation.abi import Message
from immured.isolation.compile import Compiled, RunSpec, compile_plan
from immured.isolation.launcher import LauncherLostError
from immured.isolation.messages import PinnedFile, ProtocolError, parse_pinned
from immured.isolation.pinned import Executable, check_executables
from immured.manifest.builtin import parse_map
from tests.isolation.test_launcher import FAILED, Scene, close, exited, play, until, within

ONE = "1" * 64
TWO = "2" * 64


def packed(*files: PinnedFile) -> bytes:
    body = struct.pack("=II", len(files), 0)
    for file in files:
        flags = abi.PINNED_FIXED if file.sha256 is None else 0
        body += struct.pack("=QIHH32s", file.size, flags, len(file.path), len(file.argument), file.sha256 or bytes(32))
        body += file.path + file.argument
    return body


FILES = st.builds(
    PinnedFile,
    st.binary(min_size=1, max_size=60),
    st.binary(max_size=60),
    st.binary(min_size=32, max_size=32),
    st.integers(0, 2**63),
) | st.builds(PinnedFile, st.binary(min_size=1, max_size=60), st.binary(max_size=9), st.none(), st.just(0))


@given(st.lists(FILES, min_size=1, max_size=abi.MAX_PINNED))
def test_what_a_warden_tells_is_what_is_heard(files: list[PinnedFile]) -> None:
    assert parse_pinned(packed(*files)) == tuple(files)


@given(st.lists(FILES, min_size=1, max_size=abi.MAX_PINNED), st.data())
def test_what_is_cut_short_is_nothing(files: list[PinnedFile], data: st.DataObject) -> None:
    body = packed(*files)
    with pytest.raises(ProtocolError):
        parse_pinned(body[: data.draw(st.integers(0, len(body) - 1))])
    with pytest.raises(ProtocolError):
        parse_pinned(body + b"x")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        assert 1 <= len(parse_pinned(body)) <= abi.MAX_PINNED


@pytest.mark.parametrize("count", [0, abi.MAX_PINNED + 1])
def test_it_is_of_at_least_one_file_and_of_no_more_than_there_can_be(count: int) -> None:
    with pytest.raises(ProtocolError):
        parse_pinned(packed(*[PinnedFile(b"/x", b"", bytes(32), 1)] * count))


# -- the launcher's client

TOLD = packed(PinnedFile(b"./x", b"", b"s" * 32, 7), PinnedFile(b"/bin/sh", b"-e", None, 0))


@pytest.mark.parametrize("early", [True, False])
def test_what_is_pinned_is_its_askers_whenever_he_asks(early: bool) -> None:
    async def act(scene: Scene) -> None:
        answer = scene.launcher.prepare(1, 0, b"plan", (0, 1, 2))
        close(scene.hear()[3])
        waiting = scene.launcher.pinned(1) if early else None
        program = os.memfd_create("program")
        scene.end(Message.PINNED, 1, TOLD, (program,))
        if waiting is None:
            live = scene.launcher._runs[1]
            await until(lambda: live.pinned is not None and live.pinned.done())
            waiting = scene.launcher.pinned(1)
        pinned = await within(waiting)
        assert pinned is not None
        assert [(one.path, one.argument) for one in pinned.files] == [(b"./x", b""), (b"/bin/sh", b"-e")]
        assert list(pinned.fds) == [1]
        assert os.fstat(pinned.fds[1]).st_ino == os.fstat(program).st_ino
        pinned.close()
        os.close(program)
        with pytest.raises(LookupError):
            _ = scene.launcher.pinned(1)
        scene.launcher.go(1)
        scene.end(Message.EXITED, 1, exited())
        await within(answer)

    play(act)


def test_what_nobody_asked_for_is_closed() -> None:
    async def act(scene: Scene) -> None:
        answer = scene.launcher.prepare(1, 0, b"plan", (0, 1, 2))
        close(scene.hear()[3])
        program = os.memfd_create("program")
        scene.end(Message.PINNED, 1, TOLD, (program,))
        scene.end(Message.PINNED, 1, TOLD, (program,))  # twice
        scene.end(Message.PINNED, 2, TOLD, (program,))  # of a run that nobody knows
        os.close(program)
        scene.end(Message.FAILED, 1, FAILED)
        await within(answer)

    play(act)


def test_a_run_that_ends_before_is_about_to_execute_nothing() -> None:
    async def act(scene: Scene) -> None:
        answer = scene.launcher.prepare(1, 0, b"plan", (0, 1, 2))
        close(scene.hear()[3])
        waiting = scene.launcher.pinned(1)
        scene.end(Message.FAILED, 1, FAILED)
        assert await within(waiting) is None
        await within(answer)
        with pytest.raises(LookupError):
            _ = scene.launcher.pinned(1)

    play(act)


def test_the_end_of_the_launcher_is_told_to_who_waits() -> None:
    async def act(scene: Scene) -> None:
        answer = scene.launcher.prepare(1, 0, b"plan", (0, 1, 2))
        close(scene.hear()[3])
        waiting = scene.launcher.pinned(1)
        scene.process.kill()
        for one in (waiting, answer):
            with pytest.raises(LauncherLostError):
                await within(one)

    play(act)


def test_a_descriptor_too_few_is_a_file_without() -> None:
    async def act(scene: Scene) -> None:
        answer = scene.launcher.prepare(1, 0, b"plan", (0, 1, 2))
        close(scene.hear()[3])
        waiting = scene.launcher.pinned(1)
        scene.end(Message.PINNED, 1, TOLD)
        pinned = await within(waiting)
        assert pinned is not None
        assert dict(pinned.fds) == {}
        scene.end(Message.FAILED, 1, FAILED)
        await within(answer)

    play(act)


# -- whether it is allowed


def plan(*argv: bytes, cwd: bytes | None = None, **command: Any) -> Compiled:
    tables = {"schema": 1, "command": {"allow": [argv[0].decode()], **command}}
    return compile_plan(parse_map(tables), RunSpec("s", argv, cwd=cwd), HostFacts(controllers=frozenset({"memory"})))


def file(path: bytes, argument: bytes = b"", sha256: str = ONE) -> Executable:
    return Executable(path, argument, sha256, 1, changeable=False)


ALLOWED: dict[str, tuple[Compiled, list[Executable]]] = {
    "a program by its name": (plan(b"make"), [file(b"/usr/bin/make")]),
    "a program by its path": (plan(b"/opt/x"), [file(b"/opt/x")]),
    "a program where the run starts": (plan(b"./x", cwd=b"/w"), [file(b"./x")]),
    "an interpreter by its name": (plan(b"./x", allow=["./x", "sh"]), [file(b"./x"), file(b"/bin/sh")]),
    "an interpreter by its path": (plan(b"./x", allow=["./x", "/opt/sh"]), [file(b"./x"), file(b"/opt/sh")]),
    "a relative interpreter": (
        plan(b"./x", cwd=b"/w", allow=["./x", "/w/b/sh"]),
        [file(b"./x"), file(b"./b/sh")],
    ),
    "an interpreter with its argument": (
        plan(b"./x", b"a", allow=["./x", {"program": "sh", "arguments": [["-e", "./x", "a"]]}]),
        [file(b"./x"), file(b"/bin/sh", b"-e")],
    ),
    "interpreters of interpreters": (
        plan(b"./x", b"a", allow=["./x", "/y", {"program": "sh", "arguments": [["-e", "/y", "-f", "./x", "a"]]}]),
        [file(b"./x"), file(b"/y", b"-f"), file(b"/bin/sh", b"-e")],
    ),
    "a digest": (plan(b"make", allow=[{"program": "make", "sha256": ONE}]), [file(b"/usr/bin/make")]),
    "one of two digests": (
        plan(b"make", allow=[{"program": "make", "sha256": TWO}, {"program": "make", "sha256": ONE}]),
        [file(b"/usr/bin/make")],
    ),
    "the digest of the entry whose arguments fit": (
        plan(b"git", b"log", allow=[
            {"program": "git", "arguments": [["log"]], "sha256": ONE},
            {"program": "git", "arguments": [["diff"]], "sha256": TWO},
        ]),
        [file(b"/usr/bin/git")],
    ),
    "anything where nothing is listed": (
        compile_plan(parse_map({"schema": 1, "command": {"pin": True}}), RunSpec("s", (b"x",)), HostFacts()),
        [file(b"/w/x"), file(b"/w/y")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ALLOWED)
def test_what_the_manifest_allows(name: str) -> None:
    check_executables(*ALLOWED[name])


DENIED: dict[str, tuple[Compiled, list[Executable], str]] = {
    "an interpreter that is not named": (plan(b"./x"), [file(b"./x"), file(b"/bin/sh")], "'/bin/sh'"),
    "an interpreter of that name elsewhere": (
        plan(b"./x", allow=["./x", "sh"]),
        [file(b"./x"), file(b"/w/sh")],
        "'/w/sh'",
    ),
    "a relative interpreter of that name": (
        plan(b"./x", cwd=b"/w", allow=["./x", "sh"]),
        [file(b"./x"), file(b"sh")],
        "'sh'",
    ),
    "a way round": (
        plan(b"./x", allow=["./x", "sh"]),
        [file(b"./x"), file(b"/bin/../w/sh")],
        "'/bin/../w/sh'",
    ),
    "other arguments": (
        plan(b"./x", allow=["./x", {"program": "sh", "arguments": [["./x"]]}]),
        [file(b"./x"), file(b"/bin/sh", b"-e")],
        "with these arguments",
    ),
    "another digest": (
        plan(b"make", allow=[{"program": "make", "sha256": TWO}]),
        [file(b"/usr/bin/make")],
        f"its digest is sha256:{ONE}",
    ),
    "another entry's digest": (
        plan(b"git", b"log", allow=[
            {"program": "git", "arguments": [["log"]], "sha256": TWO},
            {"program": "git", "arguments": [["diff"]], "sha256": ONE},
        ]),
        [file(b"/usr/bin/git")],
        f"its digest is sha256:{ONE}",
    ),
    "an interpreter's digest": (
        plan(b"./x", allow=["./x", {"program": "sh", "sha256": TWO}]),
        [file(b"./x"), file(b"/bin/sh")],
        f"its digest is sha256:{ONE}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DENIED)
def test_what_the_manifest_does_not_allow(name: str) -> None:
    compiled, found, words = DENIED[name]
    with pytest.raises(Refused) as refusal:
        check_executables(compiled, found)
    assert refusal.value.code == "denied"
    assert words in refusal.value.message
    assert refusal.value.remedy
    assert refusal.value.details["field"] == "command.allow"


def test_a_row_says_text_where_it_is_text() -> None:
    assert file(b"/usr/bin/make").to_map() == {"path": "/usr/bin/make", "sha256": ONE, "size": 1}
    odd = Executable(b"/\xff", b"", TWO, 2, changeable=True)
    assert odd.to_map() == {"path": b"/\xff", "sha256": TWO, "size": 2, "changeable": True}
