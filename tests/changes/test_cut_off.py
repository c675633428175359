"""A clerk that is killed at any moment leaves the host as it was, or as it was to be: once the next one has looked."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from pathlib import Path

from immured.client.errors import Refusal
from immured.client.throwaway import ThrowawayDaemon
from tests.changes.project import Captured, tree
from tests.launcher.harness import descendants

_FILES = 120


def clerks(daemon: ThrowawayDaemon) -> list[int]:
    """The daemon's own."""
    found = []
    for process in descendants(daemon.pid):
        with contextlib.suppress(OSError):  # it ended while it was looked at
            if Path(f"/proc/{process}/comm").read_text() == "immured-changes\n":
                found.append(process)
    return found


def test_killed_at_any_moment(captured: Captured, daemon: ThrowawayDaemon) -> None:
    chance = random.Random(7)
    killed = undone = turn = 0
    refused: set[str] = set()
    # A busy host may be late with each of the first twelve.
    while turn < 12 or (turn < 100 and not (killed and undone)):
        captured.sh(
            f"for i in $(seq {_FILES}); do echo {turn} > f$i; done; rm -rf d{turn - 1}; "
            f"mkdir d{turn}; echo {turn} > d{turn}/x; echo {turn} > a.txt; chmod {700 + turn % 2 * 55} dir"
        )
        before = tree(captured.path)
        over = threading.Event()

        def kill(wait: float, over: threading.Event = over) -> None:
            nonlocal killed
            while not over.is_set():
                found = clerks(daemon)
                if found and (staged := [one for one in os.listdir(captured.path) if one.startswith(".immured-")]):
                    del staged
                    time.sleep(wait)
                    for pid in found:
                        try:
                            os.kill(pid, signal.SIGKILL)
                            killed += 1
                        except ProcessLookupError:
                            pass
                    return

        killer = threading.Thread(target=kill, args=(chance.uniform(0, 0.03),))
        killer.start()
        try:
            captured.accept()
        except Refusal as refusal:
            refused.add(refusal.code)
        finally:
            over.set()
            killer.join()
        left = captured.once_free()  # the next clerk
        assert not [one for one in os.listdir(captured.path) if one.startswith(".immured-")]
        if left:
            undone += 1
            assert tree(captured.path) == before
            captured.accept()
        assert (captured.path / "a.txt").read_text() == f"{turn}\n"
        assert captured.kinds() == {}
        turn += 1
    assert refused <= {"clerk_lost"}
    assert killed
    assert undone
