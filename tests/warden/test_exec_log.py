"""The log of an exec that is kept: what it holds, what it drops, and what the warden does not believe of it."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
from collections.abc import Iterator

import pytest

from immured.isolation import abi
from immured.isolation.abi import Stage
from tests.patience import until
from tests.warden.cell import Cell, Wish, python
from tests.warden.sandbox import Exec, Log, Sandbox, shell


@pytest.fixture
def sandbox(cell: Cell) -> Iterator[Sandbox]:
    """One that lives."""
    with Sandbox(cell) as one:
        yield one


def log_of(one: Exec) -> Log:
    assert one.log is not None
    return one.log


def test_both_streams_are_in_it_in_their_order(sandbox: Sandbox) -> None:
    one = sandbox.keep(shell("echo a; read line; echo b >&2; read line; echo c"))
    for said in (1, 2):
        until(lambda: len(log_of(one).records()) == said)  # noqa: B023 - it is called at once
        os.write(one.stdin, b"\n")
    one.exited()
    log = log_of(one)
    assert log.records() == [(1, b"a\n"), (2, b"b\n"), (1, b"c\n")]
    magic, capacity, start, _, out, err = log.head()
    assert (magic, capacity, start, out, err) == (abi.LOG_MAGIC, abi.LOG_MIN, 0, 4, 2)


def test_everything_is_in_it_before_the_end_is_told(sandbox: Sandbox) -> None:
    one = sandbox.keep(shell("head -c 200000 /dev/zero"))
    one.exited()
    assert log_of(one).text() == bytes(200_000)


def test_the_newest_stays_and_all_is_counted(sandbox: Sandbox) -> None:
    lines = 300_000
    one = sandbox.keep(shell(f"seq {lines}; echo end >&2"))
    one.exited()
    log = log_of(one)
    whole = b"".join(b"%d\n" % i for i in range(1, lines + 1))
    _, capacity, start, end, out, err = log.head()
    assert (out, err) == (len(whole), 4)
    assert start > 0
    assert end - start <= capacity
    assert whole.endswith(log.text())
    assert len(log.text()) > capacity - 3 * 65536


def test_records_wrap_and_stay_whole(sandbox: Sandbox) -> None:
    program = "import os\nfor i in range(3000): os.write(1 + i % 2, bytes([i % 251]) * (i % 977 + 1))"
    one = sandbox.keep(Wish(python(program)))
    one.exited()
    log = log_of(one)
    expected = [b"", b""]
    for i in range(3000):
        expected[i % 2] += bytes([i % 251]) * (i % 977 + 1)
    for stream in (1, 2):
        assert expected[stream - 1].endswith(log.text(stream))
        assert log.text(stream)


def test_a_log_that_could_be_cut_short_is_refused(sandbox: Sandbox) -> None:
    log = Log()
    unsealed = os.memfd_create("log", os.MFD_ALLOW_SEALING)
    os.ftruncate(unsealed, abi.LOG_PAGE + abi.LOG_MIN)
    fcntl.fcntl(unsealed, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
    pipe = os.pipe()
    for memory in (unsealed, pipe[0]):
        one = sandbox.order(
            shell("true"),
            [pipe[0], pipe[1], pipe[1]],
            [memory, log.event, pipe[0], pipe[0], pipe[1]],
            flags=abi.EXEC_KEPT,
        )
        assert (one.go().failed().stage, "sealed" in one.failed().text) == (Stage.PROCESS, True)
    os.close(unsealed)
    for fd in pipe:
        os.close(fd)
    log.close()


@pytest.mark.parametrize("size", [abi.LOG_MIN // 2, abi.LOG_MIN + 4096, abi.LOG_MAX * 2])
def test_a_log_of_a_size_that_is_none_is_refused(sandbox: Sandbox, size: int) -> None:
    one = sandbox.keep(shell("true"), size)
    assert (one.failed().stage, "a log of" in one.failed().text) == (Stage.PROCESS, True)


def test_what_others_write_into_it_does_not_lead_the_warden_astray(sandbox: Sandbox) -> None:
    one = sandbox.keep(shell("head -c 250000 /dev/zero; echo written >&2; read line; seq 200000; exit 3"))
    log = log_of(one)
    one.wait_for_log(b"\0" * 1000)
    while log.head()[4] < 250_000:
        one.sandbox.measure()
    junk = struct.pack("=IIQQQQ", 0, 0xFFFFFFFF, 2**63, 2**62, 0, 0)
    os.pwrite(log.memory, junk, 0)
    for at in range(abi.LOG_PAGE, abi.LOG_PAGE + abi.LOG_MIN, 16):
        os.pwrite(log.memory, b"\xff" * 16, at)
    os.write(one.stdin, b"\n")
    assert one.exited().si_status == 3


def test_its_reader_need_not_read(sandbox: Sandbox) -> None:
    one = sandbox.keep(shell("head -c 50000000 /dev/zero"))
    assert one.exited().si_status == 0
    assert log_of(one).head()[4] == 50_000_000


def _opened(kind: str) -> int:
    if kind == "a socket":
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.close()
        return theirs.detach()
    if kind == "an epoll":
        with select.epoll() as poll:
            return os.dup(poll.fileno())
    return os.open(kind, os.O_RDONLY if kind.startswith("/proc") else os.O_RDWR)


@pytest.mark.parametrize("kind", ["/proc/1/stat", "/proc/1/syscall", "a socket", "an epoll", "/dev/zero"])
@pytest.mark.parametrize("place", ["the eventfd", "the pipe of 1", "the pipe of 2", "the writing end of 0"])
def test_root_neither_reads_nor_keeps_what_is_not_what_it_should_be(sandbox: Sandbox, place: str, kind: str) -> None:
    """What a file of /proc says is decided by who reads it: a broker would read in the log what only root may read."""
    log, fd = Log(), _opened(kind)
    null = os.open("/dev/null", os.O_RDWR)
    kept = [log.memory, log.event, null, null, null]
    kept[1 + ("the eventfd", "the pipe of 1", "the pipe of 2", "the writing end of 0").index(place)] = fd
    one = sandbox.order(shell("sleep 0.2"), [null] * 3, kept, flags=abi.EXEC_KEPT).go()
    try:
        assert one.failed().stage == Stage.PROCESS
        assert log.text() == b""
        assert sandbox.keep(shell("echo as ever")).exited().si_status == 0
    finally:
        log.close()
        os.close(fd)
        os.close(null)
