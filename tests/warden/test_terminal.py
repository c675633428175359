"""An exec at a terminal of the sandbox's own: what a program there may expect, and what it must not be able to do."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from immured.isolation.abi import Cause, Message, Stage
from tests.patience import PATIENCE_S
from tests.warden.cell import Cell, Wish, python
from tests.warden.sandbox import OVER, Exec, Sandbox, shell


@pytest.fixture
def sandbox(cell: Cell) -> Iterator[Sandbox]:
    """One that lives."""
    with Sandbox(cell) as one:
        yield one


def read_until(one: Exec, wanted: bytes | None) -> bytes:
    """What the terminal shows, until that is in it; None: until nobody has it open any more."""
    shown = b""
    deadline = time.monotonic() + PATIENCE_S
    while wanted is None or wanted not in shown:
        ready, _, _ = select.select([one.terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, shown
        try:
            shown += os.read(one.terminal, 65536)
        except OSError as error:
            if error.errno == errno.EIO and wanted is None:
                return shown
            if error.errno not in (errno.EIO, errno.EAGAIN):
                raise
            time.sleep(0.001)
            assert time.monotonic() < deadline, shown
    return shown


def type_in(one: Exec, text: bytes) -> None:
    os.write(one.terminal, text)


def test_all_three_are_one_terminal_of_the_size_that_was_asked_for(sandbox: Sandbox) -> None:
    one = sandbox.sit(shell("tty; stty size; tty <&1; tty <&2; test -t 2 && echo yes"), 30, 100)
    assert read_until(one, None).split() == [b"/dev/pts/0", b"30", b"100", b"/dev/pts/0", b"/dev/pts/0", b"yes"]
    assert one.exited().si_status == 0


def test_it_is_the_programs_controlling_terminal_and_its_own(sandbox: Sandbox) -> None:
    one = sandbox.sit(
        shell("echo to tty > /dev/tty; stat -c '%u %a' $(tty); : > $(tty); ps -o tpgid= -p $$ | grep -cw $$")
    )
    assert read_until(one, None).replace(b"\r", b"") == b"to tty\n1000 620\n1\n"


def test_lines_are_edited_and_echoed(sandbox: Sandbox) -> None:
    one = sandbox.sit(shell("read line; echo got:$line"))
    type_in(one, b"wrong\x15rigth\x7f\x7fht\r")
    assert read_until(one, None).endswith(b"got:right\r\n")


def test_end_of_input_is_typed(sandbox: Sandbox) -> None:
    one = sandbox.sit(shell("cat; echo end"))
    type_in(one, b"\x04")
    assert read_until(one, None).endswith(b"end\r\n")


def test_the_interrupt_key_reaches_what_is_in_front(sandbox: Sandbox) -> None:
    one = sandbox.sit(shell("trap 'echo caught; exit' INT; echo ready; while :; do sleep 0.05; done"))
    read_until(one, b"ready")
    type_in(one, b"\x03")
    shown = read_until(one, None)
    assert b"caught" in shown
    assert one.exited().cause is Cause.EXITED


def wait_for_front(one: Exec, name: str) -> None:
    """Until the terminal's keys are for a program of this name."""
    deadline = time.monotonic() + PATIENCE_S
    while name_of(os.tcgetpgrp(one.terminal)) != name:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def name_of(process: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/comm").read_text().strip()
    return ""


def test_job_control_works(sandbox: Sandbox) -> None:
    one = sandbox.sit(Wish(["bash", "--norc", "--noediting", "-i"], env=["PS1=$ ", "PATH=/usr/bin:/bin", "HOME=/tmp"]))
    read_until(one, b"$ ")
    type_in(one, b"sleep 1000\r")
    read_until(one, b"sleep 1000")
    wait_for_front(one, "sleep")
    type_in(one, b"\x1a")
    assert b"Stopped" in read_until(one, b"$ ")
    type_in(one, b"jobs\r")
    assert b"Stopped" in read_until(one, b"1000\r\n$ ")
    type_in(one, b"fg\r")
    read_until(one, b"fg\r\nsleep 1000")
    wait_for_front(one, "sleep")
    type_in(one, b"\x03")
    read_until(one, b"$ ")
    type_in(one, b"exit 5\r")
    read_until(one, None)
    assert one.exited().si_status == 5


def test_a_new_size_is_told(sandbox: Sandbox) -> None:
    one = sandbox.sit(shell("trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done"))
    read_until(one, b"ready")
    one.resize(50, 132)
    assert b"50 132" in read_until(one, None)


def test_a_signal_goes_to_the_foreground_group(sandbox: Sandbox) -> None:
    one = sandbox.sit(Wish(["bash", "--norc", "--noediting", "-i"], env=["PS1=$ ", "PATH=/usr/bin:/bin", "HOME=/tmp"]))
    read_until(one, b"$ ")
    type_in(one, b"sh -c 'echo in; echo front; sleep 1000'\r")
    read_until(one, b"\nfront")
    one.signal(signal.SIGTERM)
    assert b"Terminated" in read_until(one, b"$ ")
    type_in(one, b"exit 4\r")
    read_until(one, None)
    assert one.exited().si_status == 4


def test_each_exec_has_one_of_its_own(sandbox: Sandbox) -> None:
    execs = [sandbox.sit(shell("tty; read line")) for _ in range(3)]
    assert {read_until(one, b"\n").strip() for one in execs} == {b"/dev/pts/%d" % i for i in range(3)}
    for one in execs:
        type_in(one, b"\r")
        one.exited()


def test_there_are_no_more_than_the_sandbox_may_have(sandbox: Sandbox) -> None:
    hog = """
import os, time
held = []
try:
    while True:
        held.append(os.openpty())
except OSError:
    print(len(held), flush=True)
time.sleep(1000)
"""
    one = sandbox.start(Wish(python(hog)))
    one.wait_for_output(b"\n")
    null = os.open("/dev/null", os.O_RDWR)
    refused = sandbox.order(shell("true", terminal=(24, 80)), [null] * 3, flags=0)
    os.close(null)
    failed = refused.go().failed()
    assert (failed.stage, failed.errno) == (Stage.TERMINAL, errno.ENOSPC)


def test_what_it_leaves_running_ends_with_it_and_the_terminal_is_given_back(sandbox: Sandbox) -> None:
    for _ in range(3):
        one = sandbox.sit(shell("trap '' HUP; sleep 1000 & tty"))
        assert b"/dev/pts/0" in read_until(one, None)
        assert one.exited().stragglers
        os.close(one.terminal)
        one.terminal = -1
        sandbox.hear(one.number, OVER)


def test_its_hang_up_is_a_kept_execs_to_survive(sandbox: Sandbox) -> None:
    one = sandbox.sit(shell("echo ready; read line; echo got:$line"), kept=True)
    one.wait_for_log(b"ready")
    os.close(one.terminal)
    one.terminal = -1
    sandbox.again()
    one.kept()
    _, _, [one.terminal] = sandbox.hear(one.number, Message.TERMINAL)
    type_in(one, b"back\r")
    assert one.exited().si_status == 0
    assert one.log is not None
    assert one.log.text().endswith(b"got:back\r\n")


def test_no_other_terminal_of_the_host_is_there(sandbox: Sandbox) -> None:
    listed = sandbox.run(Wish(["ls", "/dev/pts"])).succeeded().split()
    assert listed == ["ptmx"]


def test_a_size_of_nothing_is_refused(sandbox: Sandbox) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    refused = sandbox.order(shell("true", terminal=(0, 80)), [null] * 3, flags=0)
    os.close(null)
    assert refused.go().failed().stage is Stage.PLAN
