"""One exec against another of the same sandbox, and against what serves the two."""

from __future__ import annotations

import json
from typing import Any

import pytest

from immured import Client
from immured.client.errors import Refusal
from immured.client.sandbox import Exec
from immured.client.sandbox_questions import Terminal
from tests.patience import PATIENCE_S, UNHURRIED
from tests.siege.inside import GIVES, KEEPS, STOPS_ALL, begun, over, program

pytestmark = pytest.mark.needs_root
SIZE = Terminal(24, 80)


@pytest.mark.parametrize("keeper", ["waits", "writes"])
@pytest.mark.parametrize("terminal", [None, SIZE], ids=["pipes", "terminal"])
def test_who_was_passed_the_output_does_not_hold_the_end(
    client: Client, keeper: str, terminal: Terminal | None
) -> None:
    with client.sandbox(manifest=UNHURRIED) as sandbox:
        begun(sandbox, program(KEEPS, keeper))
        assert over(sandbox.start(program(GIVES), terminal=terminal)).cause == "exited"


def test_what_a_neighbour_writes_into_the_output_of_a_dead_one_is_bounded(client: Client) -> None:
    """Streamed, where no capture's bound holds it. Once its end is heard, 5 MiB of each are taken at most; what comes
    before that is output as any other."""
    taken = 0

    def take(data: bytes) -> None:
        nonlocal taken
        taken += len(data)

    with client.sandbox(manifest=UNHURRIED) as sandbox:
        begun(sandbox, program(KEEPS, "writes"))
        result = sandbox.exec(program(GIVES), on_stdout=take, on_stderr=take, timeout=PATIENCE_S)
    assert (result.cause, taken < 64 << 20) == ("exited", True), taken


def test_a_neighbour_that_stops_everybody_keeps_none_from_ending(client: Client) -> None:
    """Also those that are on their way to their program."""
    with client.sandbox(manifest=UNHURRIED) as sandbox:
        begun(sandbox, program(STOPS_ALL))
        for _ in range(4):
            assert over(sandbox.start(["/bin/sleep", "30"], limits={"wall": "500ms"})).cause in {"timeout", "killed"}


def signal_for_ever(one: Exec) -> None:
    while True:
        one.signal("TERM")


def test_who_stops_all_of_its_own_keeps_its_time(client: Client) -> None:
    """What carries signals in from outside has to be there for a moment, among the payload's processes."""
    deaf = "import os, signal\nfor number in (1, 2, 3, 15):\n    signal.signal(number, signal.SIG_IGN)\nos.fork()\n"
    with client.sandbox(manifest=UNHURRIED) as sandbox:
        one = begun(sandbox, program(deaf + STOPS_ALL), terminal=SIZE, limits={"wall": "6s"})
        one.signal("TERM")
        with pytest.raises(Refusal) as refused:  # for as long as it has: then there is nobody to tell
            signal_for_ever(one)
        assert refused.value.code == "wrong_state"
        assert over(one).cause == "timeout"


REACHES = """
import ctypes, errno, fcntl, json, os, signal
libc = ctypes.CDLL(None, use_errno=True)
NUMBERS = {"x86_64": (101, 310, 312), "aarch64": (117, 270, 272)}[os.uname().machine]

def call(number, *words):
    if libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, words)) < 0:
        raise OSError(ctypes.get_errno(), "")

def tried(attempt, *words):
    try:
        attempt(*words)
    except OSError as refused:
        return errno.errorcode[refused.errno]
    return "ok"

def by_a_file(pid):
    read, write = os.pipe()
    fcntl.fcntl(read, fcntl.F_SETOWN, pid)
    fcntl.fcntl(read, 10, signal.SIGKILL)  # F_SETSIG
    fcntl.fcntl(read, fcntl.F_SETFL, os.O_ASYNC)
    os.write(write, b".")

def attempts(pid):
    return {
        "trace": tried(call, NUMBERS[0], 0x4206, pid, 0, 0),
        "read": tried(call, NUMBERS[1], pid, 0, 0, 0, 0, 0),
        "compare": tried(call, NUMBERS[2], os.getpid(), pid, 0, 0, 0),
        "descriptor": tried(call, 438, os.pidfd_open(pid), 0, 0),
        "namespace": tried(call, 308 if NUMBERS[0] == 101 else 268, os.pidfd_open(pid), 0x20000),
        "memory": tried(os.open, f"/proc/{pid}/mem", os.O_RDWR),
        "environment": tried(lambda: open(f"/proc/{pid}/environ").read()),
        "output": tried(os.open, f"/proc/{pid}/fd/1", os.O_WRONLY),
        "directory": tried(os.listdir, f"/proc/{pid}/cwd/"),
        "root": tried(os.listdir, f"/proc/{pid}/root/"),
    }

def signals(pid):
    by_a_file(pid)
    return {
        "kill": tried(os.kill, pid, signal.SIGKILL),
        "pidfd": tried(signal.pidfd_send_signal, os.pidfd_open(pid), signal.SIGKILL),
    }

others = [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) not in (1, os.getpid())]
print(json.dumps({open(f"/proc/{pid}/comm").read().strip(): {**attempts(pid), **signals(pid)} for pid in others}))
"""
EXPLAINED = """
import time
try:
    open("/usr/new", "w")
except OSError:
    print("begun", flush=True)
time.sleep(600)
"""


def test_neither_a_neighbour_nor_its_explainer_is_reached(client: Client) -> None:
    """Where the kernel keeps domains of Landlock apart, for signals too (since 6.12)."""
    abi = client.status()["host"]["landlock_abi"]  # type: ignore[index]
    with client.sandbox(manifest=UNHURRIED) as sandbox:
        victim = begun(sandbox, program(EXPLAINED))
        said: dict[str, dict[str, Any]] = json.loads(sandbox.exec(program(REACHES)).stdout)
        facts = victim.facts()
    assert set(said) == {"python3", "explainer"}
    if abi < 6:  # they are one user: the signals arrive
        said.pop("python3")
    else:
        assert facts is not None
        assert facts.live
    assert {word for tried in said.values() for word in tried.values()} <= {"EPERM", "EACCES", "ENOSYS"}, said


TERMINALS = """
import fcntl, json, os
os.setsid() if os.getsid(0) != os.getpid() else None
terminal = os.open("/dev/pts/0", os.O_WRONLY | os.O_NOCTTY)

def tried(request, word=0):
    try:
        fcntl.ioctl(terminal, request, word)
    except OSError:
        return "refused"
    return "ok"

requests = {"type": 0x5412, "linux": 0x541C, "hang up": 0x5437, "discipline": 0x5423, "console": 0x541D, "pty": 0x5441}
said = {name: tried(request, b"x" * 64) for name, request in requests.items()}
print(json.dumps({"take": tried(0x540E), "steal": tried(0x540E, 1), **said}))
"""


def test_a_neighbours_terminal_is_neither_taken_nor_typed_into(client: Client) -> None:
    """What it shows can be added to: execs of one sandbox are one user."""
    with client.sandbox(manifest=UNHURRIED) as sandbox:
        begun(sandbox, ["/bin/sh", "-c", "echo begun; exec sleep 600"], terminal=SIZE)
        said = json.loads(sandbox.exec(program(TERMINALS)).stdout)
    assert set(said.values()) == {"refused"}, said
