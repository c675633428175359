"""A broker that dies: what was pinned and let go lives on, what was not entered never runs."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from immured.client.throwaway import ThrowawayDaemon
from tests.patience import PATIENCE_S, until
from tests.pinning.conftest import manifest
from tests.restart.test_sandboxes import below, die_and_come_back, entries

pytestmark = pytest.mark.needs_root


def test_what_was_let_go_lives_on(mortal: ThrowawayDaemon) -> None:
    with mortal.client() as client:
        made = client.sandbox(name="work", manifest=manifest("sh"))
        begun = made.start(["sh", "-c", "read line; echo got $line; exit 4"])
        until(lambda: any(one.state == "running" for one in made.execs()))
    die_and_come_back(mortal)
    with mortal.client() as client:
        again = client.open("work")
        run = again.find(begun.id).attach(stdin=b"it\n")
        assert b"".join(data for name, data in run if name == "stdout") == b"got it\n"
        assert run.result.exit_code == 4
        assert again.exec(["sh", "-c", "exit 3"]).exit_code == 3
    assert all(row["executables"] for row in entries(mortal, "exec.accepted"))


@pytest.mark.parametrize("detached", [False, True])
def test_what_was_not_entered_never_runs(mortal: ThrowawayDaemon, detached: bool) -> None:
    """It stands still while it is being pinned, and its broker dies meanwhile."""
    argv = ["sh", "-c", "touch /tmp/ran"]
    with mortal.client() as client:
        made = client.sandbox(name="work", manifest=manifest("sh"))
        assert made.exec(["sh", "-c", "exit 0"]).exit_code == 0
        [frozen] = below(made.id, "execs/cgroup.freeze")
        frozen.write_text("1")

        def order() -> None:
            with mortal.client() as other, contextlib.suppress(Exception):
                other.open("work").start(argv) if detached else other.open("work").exec(argv)

        ordering = threading.Thread(target=order)
        ordering.start()
        until(lambda: len(frozen_processes(made.id)) > 0)
        time.sleep(0.2)
        assert len(entries(mortal, "exec.accepted")) == 1
    die_and_come_back(mortal)
    ordering.join(PATIENCE_S)
    frozen.write_text("0")
    with mortal.client() as client:
        again = client.open("work")
        until(lambda: not frozen_processes(made.id))
        assert again.exec(["sh", "-c", "test -e /tmp/ran"]).exit_code == 1
    assert len(entries(mortal, "exec.accepted")) == 2


def frozen_processes(sandbox: str) -> list[str]:
    found: list[str] = []
    for path in below(sandbox, "execs/*/cgroup.procs"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            found += path.read_text().split()
    return found
