"""A keeper over a long life: what it holds, what it makes ahead of need, and what it hears that makes no sense."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from immured.isolation.abi import Message, Stage
from tests.patience import PATIENCE_S
from tests.warden.cell import Cell, Wish
from tests.warden.sandbox import AGAIN, ALONE, ASK, OVER, SANDBOX, Sandbox, shell

SANITIZERS = 8 << 20
"""A mapping of this size is theirs: what they know of every byte."""


@pytest.fixture
def sandbox(cell: Cell) -> Iterator[Sandbox]:
    """One that lives."""
    with Sandbox(cell) as one:
        yield one


def held(sandbox: Sandbox) -> tuple[int, int]:
    """Descriptors and mappings of its keeper's, who is done with all that it heard: it answers one after the other."""
    sandbox.measure()
    place = Path(f"/proc/{sandbox.cell.process.pid}")
    return len(list((place / "fd").iterdir())), len((place / "maps").read_text().splitlines())


def spare_of(sandbox: Sandbox) -> int:
    """The warden that waits for an exec, as soon as there is one."""
    keeper = sandbox.cell.process.pid
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for child in Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split():
            try:
                if Path(f"/proc/{child}/comm").read_text() == "immured-warden\n":
                    return int(child)
            except (FileNotFoundError, ProcessLookupError):
                continue
        time.sleep(0.005)
    raise TimeoutError("no warden waits")


def wait_for_end(process: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while Path(f"/proc/{process}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def finish(sandbox: Sandbox, script: str) -> None:
    one = sandbox.start(shell(script))
    one.exited()
    sandbox.hear(one.number, OVER)


def test_many_execs_leave_nothing_with_it(sandbox: Sandbox, subtree: Path) -> None:
    finish(sandbox, "true")
    spare_of(sandbox)
    before = held(sandbox)
    for _ in range(60):
        finish(sandbox, "true")
    for _ in range(10):
        kept = sandbox.keep(shell("echo x"))
        kept.exited()
        sandbox.hear(kept.number, OVER)
        sat = sandbox.sit(shell("tty"))
        sat.exited()
        sandbox.hear(sat.number, OVER)
    # The last exec's warden may still be on its way out, and the next one not made yet.
    finish(sandbox, "true")
    deadline = time.monotonic() + PATIENCE_S
    while held(sandbox) != before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert held(sandbox) == before
    [execs] = subtree.rglob(f"{sandbox.name}/execs")
    assert len(list(execs.glob("*/"))) <= 1


def test_a_warden_waits_and_is_used_once(sandbox: Sandbox) -> None:
    first = spare_of(sandbox)
    finish(sandbox, "true")
    assert spare_of(sandbox) != first
    assert not Path(f"/proc/{first}").exists()


def test_the_death_of_a_warden_that_waits_costs_nothing(sandbox: Sandbox) -> None:
    for _ in range(3):
        spare = spare_of(sandbox)
        os.kill(spare, signal.SIGKILL)
        wait_for_end(spare)
        finish(sandbox, "true")
    assert sandbox.run(shell("echo alive")).succeeded() == "alive\n"


def test_a_warden_that_waits_has_nothing_of_an_exec_before_it(sandbox: Sandbox) -> None:
    secret = "WORD=" + "".join(random.Random(4).choices("abcdefghijklmnop", k=40))
    one = sandbox.keep(shell("true", env=[secret, "PATH=/usr/bin:/bin"]))
    one.exited()
    sandbox.hear(one.number, OVER)
    spare = spare_of(sandbox)
    found = bytearray()
    for line in Path(f"/proc/{spare}/maps").read_text().splitlines():
        area, rights, *_ = line.split()
        if not rights.startswith("rw"):
            continue
        start, end = (int(one, 16) for one in area.split("-"))
        if end - start > SANITIZERS:
            continue
        # It may still be on its way to where it waits: an area may be gone by now.
        with open(f"/proc/{spare}/mem", "rb", buffering=0) as memory, contextlib.suppress(OSError):
            memory.seek(start)
            found += memory.read(end - start)
    assert len(found) > 100_000
    assert secret.encode() not in found


def test_a_warden_that_waits_is_let_go_of_after_a_while(sandbox: Sandbox) -> None:
    wait_for_end(spare_of(sandbox))
    finish(sandbox, "true")


def test_bursts_need_no_waiting_warden(sandbox: Sandbox) -> None:
    execs = [sandbox.start(Wish(["/bin/true"])) for _ in range(30)]
    assert all(one.exited().si_status == 0 for one in execs)


def test_what_makes_no_sense_is_passed_over(sandbox: Sandbox) -> None:
    one = sandbox.start(shell("read line; exit 3"), stdin=b"")
    rng = random.Random(7)
    kinds = [*(kind for kind in Message if kind < Message.READY), ASK, ALONE + 1000, AGAIN + 1000]
    for kind in kinds:
        for number in (SANDBOX, 12345, one.number):
            for size in (0, 1, 7, 9, 40):
                if kind == Message.KILL and size == 8:
                    continue
                body = rng.randbytes(size)
                sandbox.say(kind, number, body)
    sandbox.measure()
    one.outcome()
    assert sandbox.run(shell("echo alive")).succeeded() == "alive\n"


def test_an_order_with_too_few_descriptors_fails(sandbox: Sandbox) -> None:
    plan = b"\0" * 64
    sandbox.say(Message.EXEC, 77, struct.pack("=QII", SANDBOX, len(plan), 0) + plan)
    _, body, _ = sandbox.hear(77, Message.FAILED)
    assert struct.unpack_from("=I", body)[0] == Stage.PLAN
    sandbox.hear(77, OVER)


def test_a_number_that_lives_is_not_taken_twice(sandbox: Sandbox) -> None:
    one = sandbox.start(shell("sleep 1000"))
    second = sandbox.order(shell("true"), [0, 1, 2], flags=0, number=one.number)
    _, body, _ = sandbox.hear(one.number, Message.FAILED)
    assert struct.unpack_from("=I", body)[0] == Stage.SANDBOX
    second.call_off()
    one.kill()
    sandbox.hear(one.number, Message.EXITED, Message.FAILED)


def test_a_record_that_is_no_memory_is_none(cell: Cell) -> None:
    """The broker's own socket, held here, would keep the launcher from ever seeing that he is gone."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    one = Sandbox(cell, record=theirs.fileno())
    assert one.failed().stage == Stage.CELL
    theirs.close()
    os.close(one.record)
    cell.close()
    ours.settimeout(PATIENCE_S)
    assert ours.recv(1) == b""
    ours.close()
