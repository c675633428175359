"""Nothing that an exec does keeps it from being paused, or from ending when its sandbox does."""

from __future__ import annotations

import pytest

from immured import Client
from immured.client.sandbox_questions import Terminal
from tests.patience import PATIENCE_S, UNHURRIED
from tests.sandboxes.waiting import until
from tests.siege.inside import begun, over, program

pytestmark = pytest.mark.needs_root

HOLDS = {
    "asks to be explained": """
        def ask():
            while True:
                try:
                    os.open("/usr/new", os.O_WRONLY | os.O_CREAT)
                except OSError:
                    pass
        for _ in range(3):
            threading.Thread(target=ask).start()
    """,
    "forks": """
        while True:
            if os.fork() == 0:
                os._exit(0)
            os.wait()
    """,
    "waits for children by vfork": """
        while True:
            subprocess.run(["/bin/sleep", "0.02"])
    """,
    "stops and goes on": """
        child = os.fork()
        while child == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
        while True:
            os.kill(child, signal.SIGCONT)
    """,
    "executes itself": """
        os.execv(sys.executable, [sys.executable, "-S", "-c", open("/proc/self/cmdline").read().split("\\0")[-2]])
    """,
    "executes from a thread": """
        while True:
            child = os.fork()
            if child == 0:
                threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
                threading.Thread(target=os.execv, args=("/bin/true", ["true"])).start()
                time.sleep(9)
            os.waitpid(child, 0)
    """,
    "ignores every signal": """
        for number in set(range(1, 65)) - {9, 19, 32, 33}:
            signal.signal(number, signal.SIG_IGN)
        while True:
            pass
    """,
    "daemonises": """
        while True:
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    time.sleep(0.1)
                os._exit(0)
            os.wait()
    """,
}


def hostile(name: str) -> str:
    body = HOLDS[name].replace("\n        ", "\n")
    return f"import os, signal, subprocess, sys, threading, time\nprint('begun', flush=True)\n{body}"


@pytest.mark.parametrize("name", HOLDS)
def test_it_is_paused_as_often_as_wanted_and_killed_while_it_is(client: Client, name: str) -> None:
    with client.sandbox(manifest=UNHURRIED) as sandbox:
        one = begun(sandbox, program(hostile(name)))
        for _ in range(6):
            assert sandbox.pause().state == "paused"
            assert sandbox.resume().state == "ready"
        sandbox.pause()
        sandbox.kill()
        assert over(one).cause == "killed"


@pytest.mark.parametrize("paused", [False, True])
def test_no_time_to_live_is_outlived(client: Client, paused: bool) -> None:
    with client.sandbox(ttl="5m", manifest=UNHURRIED) as sandbox:
        one = begun(sandbox, program(hostile("stops and goes on")), terminal=Terminal(24, 80))
        if paused:
            sandbox.pause()
        sandbox.extend("1s")
        until(lambda: sandbox.refresh().state == "ended")
        assert (sandbox.facts.cause, over(one).cause) == ("expired", "killed")


BROTHERS = """
import ctypes, os, sys, time
clone = 56 if os.uname().machine == "x86_64" else 220
for _ in range(16):
    if ctypes.CDLL(None).syscall(clone, 0x8000 | int(sys.argv[1]), 0, 0, 0, 0) == 0:  # CLONE_PARENT
        os.setsid()
        time.sleep(float(sys.argv[2]))
        os._exit(0)
"""


@pytest.mark.parametrize("signal", ["17", "9", "0"])
@pytest.mark.parametrize("patience", ["0", "1000"])
def test_brothers_of_an_execs_process_end_with_it(client: Client, signal: str, patience: str) -> None:
    """They are children of its warden's."""
    others = "import os; print(sorted(int(name) for name in os.listdir('/proc') if name.isdigit())[1:])"
    with client.sandbox(manifest=UNHURRIED) as sandbox:
        assert sandbox.exec(program(BROTHERS, signal, patience), timeout=PATIENCE_S).cause == "exited"
        until(lambda: len(sandbox.exec(program(others)).stdout.split(b",")) == 1)
        sandbox.kill()
        assert sandbox.refresh().state == "ended"
