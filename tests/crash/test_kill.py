"""`kill -9` of the daemon under load: what was acknowledged is there, the ledger verifies, nothing is left."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from immured.client.throwaway import ThrowawayDaemon
from immured.errors import ImmuredError
from tests.crash.leftovers import leftovers
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.needs_root

ROUNDS, FEWEST = 100, 25
LONG_ENOUGH_S = 300
"""A slow machine makes fewer rounds, and not fewer than `FEWEST`."""
MOST_RUNS = 5
"""That are waited for before a kill: by then some client is not yet at the command that goes on for long."""
COMMANDS = (["/bin/true"], ["/bin/sleep", "0.05"], ["/bin/sh", "-c", "sleep 20 & sleep 20"], ["/bin/echo", "hello"])


class Load:
    """Clients that run things until the daemon is gone, and remember each receipt that they were given."""

    def __init__(self, daemon: ThrowawayDaemon, clients: int) -> None:
        self.acknowledged: list[tuple[int, bytes]] = []
        self._daemon = daemon
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(clients)]
        for thread in self._threads:
            thread.start()

    def _work(self, seed: int) -> None:
        choose = random.Random(seed)
        try:
            with self._daemon.client() as client:
                while True:
                    result = client.run(choose.choice(COMMANDS), limits={"wall": "30s"})
                    self.acknowledged.append((result.receipt.seq, result.receipt.leaf))
        except (OSError, ImmuredError, EOFError):
            return  # the daemon is gone, as intended

    def wait_for_runs(self, number: int) -> None:
        """Until so many are acknowledged: how long that takes is the machine's business."""
        wait_for(lambda: len(self.acknowledged) >= number)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "a client hangs on a daemon that is dead"


def victims(daemon: ThrowawayDaemon) -> dict[str, int]:
    """The processes whose death is tried: the broker most of the time, the launcher now and then."""
    found = {"broker": daemon.pid}
    for child in psutil.Process(daemon.pid).children():
        if child.name().startswith("immured-launch"):
            found["launcher"] = child.pid
    return found


def wait_for(condition: object, seconds: float = PATIENCE_S) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.timeout(580)  # several times as long as it takes
def test_kills_under_load_lose_nothing_and_leave_nothing(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    state = tmp_path / "state"
    ThrowawayDaemon.immure("init", "--state", str(state))
    before = leftovers(state)
    moments = random.Random(7)
    acknowledged: list[tuple[int, bytes]] = []
    rounds, long_enough = 0, time.monotonic() + LONG_ENOUGH_S
    while rounds < FEWEST or (rounds < ROUNDS and time.monotonic() < long_enough):
        rounds += 1
        daemon = ThrowawayDaemon(state=state).start()
        request.addfinalizer(daemon.kill)  # should it not come to that below
        load = Load(daemon, clients=3)
        load.wait_for_runs(moments.randint(0, MOST_RUNS))
        time.sleep(moments.uniform(0.0, 0.1))  # into the middle of the next
        victim = victims(daemon).get("launcher" if rounds % 5 == 0 else "broker", daemon.pid)
        os.kill(victim, signal.SIGKILL)
        load.join()
        daemon.kill()
        acknowledged += load.acknowledged

    with (
        ThrowawayDaemon(state=state) as daemon,
        daemon.client() as client,
    ):
        assert client.run(["/bin/true"]).exit_code == 0
    assert ThrowawayDaemon.immure("ledger", "verify", "--state", str(state)).returncode == 0

    wait_for(lambda: not leftovers(state).beyond(before))

    lines = (state / "ledger" / "current.jsonl").read_bytes().splitlines()
    for seq, leaf in acknowledged:
        assert hashlib.sha256(b"\0" + lines[seq]).digest() == leaf
    entries = [json.loads(line) for line in lines]
    begun = {entry["data"]["sandbox"] for entry in entries if entry["type"] == "run.accepted"}
    ended = [entry["data"]["sandbox"] for entry in entries if entry["type"] in ("run.finished", "run.lost")]
    assert len(acknowledged) > rounds, "there was hardly any load"
    assert begun == set(ended), "an intent has no outcome"
    assert len(ended) == len(set(ended)), "an intent has two outcomes"
