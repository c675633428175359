"""Clerks: born of a sandbox's keeper when they are asked for, as its payload, in a cgroup of the sandbox's."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from immured.isolation.abi import MAX_PACKET, PAYLOAD_ID, Clerk
from immured.isolation.files_words import FilesAnswer, FilesOp, pack_question, parse_files_answer
from tests.descriptors import descriptors
from tests.warden.cell import PATIENCE_S, Cell
from tests.warden.sandbox import Sandbox, shell

MOST = 32


@pytest.fixture
def sandbox(cell: Cell) -> Iterator[Sandbox]:
    """One that lives."""
    with Sandbox(cell) as one:
        yield one


class Asked:
    """The broker's end of a clerk's socket."""

    def __init__(self, sandbox: Sandbox, clerk: int = Clerk.FILES) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(PATIENCE_S)
        with theirs:
            sandbox.ask(clerk, theirs.fileno())  # type: ignore[arg-type]

    def stat(self, path: bytes) -> FilesAnswer:
        self.socket.send(pack_question(FilesOp.STAT, path))
        return parse_files_answer(FilesOp.STAT, self.socket.recv(MAX_PACKET))

    def is_over(self) -> bool:
        return self.socket.recv(MAX_PACKET) == b""


Ask = Callable[..., Asked]


@pytest.fixture
def ask(sandbox: Sandbox) -> Iterator[Ask]:
    """Asks for a clerk; their sockets end with the test."""
    with ExitStack() as stack:

        def one(clerk: int = Clerk.FILES) -> Asked:
            asked = Asked(sandbox, clerk)
            stack.callback(asked.socket.close)
            return asked

        yield one


def clerks(sandbox: Sandbox, subtree: Path) -> list[int]:
    """As the host counts them."""
    place = subtree / "tenants" / "tests" / sandbox.name / "clerks" / "cgroup.procs"
    return [int(line) for line in place.read_text().split()] if place.exists() else []


def links(process: int) -> set[str]:
    """What it has open, by whatever number."""
    return {one.partition(" -> ")[2] for one in descriptors(process)}


def test_one_sees_what_execs_made(sandbox: Sandbox, ask: Ask) -> None:
    sandbox.run(shell("echo hello > /tmp/file")).succeeded()
    assert ask().stat(b"/tmp/file").refusal is None
    assert ask().stat(b"/tmp/none").refusal is not None


def test_one_is_the_payload_and_counts_as_the_sandboxs(sandbox: Sandbox, ask: Ask, subtree: Path) -> None:
    one = ask()
    one.stat(b"/tmp")
    [process] = clerks(sandbox, subtree)
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    payload = str(sandbox.cell.slot_base + PAYLOAD_ID)
    assert set(status["Uid"].split()) == {payload}
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    one.socket.close()


def test_one_has_no_descriptor_of_the_keepers_own(sandbox: Sandbox, ask: Ask, subtree: Path) -> None:
    sandbox.keep(shell("sleep 1000"))
    one = ask()
    one.stat(b"/tmp")
    sandbox.measure()  # one order after the other: the keeper has let go of what the ASK brought
    [process] = clerks(sandbox, subtree)
    kinds = ("socket:", "/memfd:", "anon_inode:[eventfd]", "anon_inode:[pidfd]", "pipe:")
    ours, theirs = links(sandbox.cell.process.pid), links(process)
    assert len([name for name in ours if name.startswith(kinds)]) >= 8
    shared = {name for name in ours & theirs if name.startswith(kinds)}
    harness = {str(Path(f"/proc/{process}/fd/{fd}").readlink()) for fd in (1, 2)}
    assert shared - harness == set()


def test_the_end_of_its_socket_is_its_own(sandbox: Sandbox, ask: Ask, subtree: Path) -> None:
    one = ask()
    one.stat(b"/tmp")
    assert len(clerks(sandbox, subtree)) == 1
    one.socket.close()
    deadline = time.monotonic() + PATIENCE_S
    while clerks(sandbox, subtree):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_pause_does_not_stop_one(sandbox: Sandbox, ask: Ask) -> None:
    sandbox.run(shell("echo hello > /tmp/file")).succeeded()
    sandbox.freeze(True)
    assert ask().stat(b"/tmp/file").refusal is None


def test_the_sandboxs_end_is_theirs(sandbox: Sandbox, ask: Ask) -> None:
    several = [ask() for _ in range(3)]
    for one in several:
        one.stat(b"/tmp")
    sandbox.kill()
    assert all(one.is_over() for one in several)


def test_there_are_no_more_than_so_many_at_a_time(sandbox: Sandbox, ask: Ask) -> None:
    several = [ask() for _ in range(MOST)]
    for one in several:
        assert one.stat(b"/tmp").refusal is None
    assert ask().is_over()
    for one in several:
        one.socket.close()
    deadline = time.monotonic() + PATIENCE_S
    while True:
        again = ask()
        try:
            assert again.stat(b"/tmp").refusal is None
            break
        except (BrokenPipeError, ConnectionResetError, IndexError, ValueError):
            assert time.monotonic() < deadline


def test_nobody_serves_what_no_clerk_does(sandbox: Sandbox, ask: Ask) -> None:
    assert ask(99).is_over()
    assert sandbox.run(shell("echo alive")).succeeded() == "alive\n"
