"""Nothing acknowledged is ever lost: power failures at every point, in memory; kill -9 of real processes, on a disk."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from immured.errors import ConfigurationError, ImmuredError, Refused
from immured.ledger import Entry, Ledger, Receipt, create
from immured.ledger.reader import scan
from immured.ledger.recovery import recover
from tests.ledger.memory import MemoryStorage, PowerFailure
from tests.ledger.sample import ACTOR, DAEMON, START_NS, created, opened, vkeys
from tests.patience import PATIENCE_S

KEYS = vkeys(created())


class FailAt:
    """The power fails at the n-th operation and stays off."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = 0

    def __call__(self, operation: str) -> None:
        self.count += 1
        if self.count >= self.at:
            raise PowerFailure


def work(storage: MemoryStorage, chance: random.Random) -> list[Receipt]:
    """Some entries, alone and together; what was acknowledged. Ends early where the power fails."""
    acknowledged: list[Receipt] = []
    try:
        ledger = opened(storage, KEYS, checkpoint_entries=5)
    except PowerFailure:
        return acknowledged
    try:
        for _ in range(4):
            together = [
                ledger.entry("run.accepted", ACTOR, {"argv": ["x" * chance.choice([1, 200, 900])]})
                for _ in range(chance.choice([1, 1, 4]))
            ]
            acknowledged += [pending.wait(PATIENCE_S) for pending in together]
    except Refused:
        pass
    with contextlib.suppress(PowerFailure):
        ledger.close()
    return acknowledged


def survivors(storage: MemoryStorage) -> dict[int, Entry]:
    entries: list[Entry] = []
    assert scan(storage, storage.size(), {}, entries.append).problem is None
    return {entry.seq: entry for entry in entries}


def steps_of(seed: int) -> int:
    counter = FailAt(1 << 30)
    work(created_with(counter), random.Random(seed))
    return counter.count


def created_with(before: FailAt) -> MemoryStorage:
    storage = created()
    storage.before = before
    return storage


@pytest.mark.parametrize("seed", range(6))
def test_a_power_failure_at_any_point_loses_nothing_acknowledged(seed: int) -> None:
    for step in range(1, steps_of(seed) + 1):
        storage = created_with(FailAt(step))
        acknowledged = work(storage, random.Random(seed))
        for roll in range(4):
            restarted = storage.after_crash(random.Random(f"{seed}.{step}.{roll}"))
            opened(restarted, KEYS).close()
            entries = survivors(restarted)
            assert all(entries[receipt.seq].leaf == receipt.leaf for receipt in acknowledged)


def test_power_failures_during_recovery_lose_nothing_and_record_every_quarantine() -> None:
    storage = created_with(FailAt(1 << 30))
    acknowledged = work(storage, random.Random(1))
    whole = storage.content()
    for kept in range(1, 400, 37):
        for step in range(1, 12):
            torn = MemoryStorage(FailAt(step))
            torn.files = dict(storage.files)
            torn.cache = bytearray(whole + whole[-400 : -400 + kept].replace(b"\n", b""))
            torn.disk = bytearray(torn.cache)
            with contextlib.suppress(PowerFailure, ImmuredError):
                opened(torn, KEYS).close()
            restarted = torn.after_crash(random.Random(step))
            opened(restarted, KEYS).close()
            entries = survivors(restarted)
            assert all(entries[receipt.seq].leaf == receipt.leaf for receipt in acknowledged)
            recorded = {entry.data["file"] for entry in entries.values() if entry.type == "ledger.recovered"}
            assert recorded == set(restarted.names("quarantine"))


def test_an_acknowledged_entry_that_the_disk_lost_refuses_when_a_checkpoint_knows_of_it() -> None:
    storage = created_with(FailAt(1 << 30))
    work(storage, random.Random(1))
    lying = storage.after_crash(random.Random(0))
    lying.truncate(len(storage.content().partition(b"\n")[0]) + 1)
    with pytest.raises(ConfigurationError, match="checkpoint says"):
        recover(lying, lying, KEYS, START_NS)


APPENDER = """
import os, sys, threading
from pathlib import Path
from immured.ledger import Ledger
ledger = Ledger.open(Path(sys.argv[1]))
def work():
    while True:
        receipt = ledger.entry("run.accepted", {"key": "k"}, {"argv": ["x" * 300]}).wait()
        os.write(1, b"%d %s\\n" % (receipt.seq, receipt.leaf.hex().encode()))
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
threading.Event().wait()
"""


def test_twenty_kills_lose_nothing_acknowledged(tmp_path: Path) -> None:
    create(tmp_path, DAEMON)
    chance = random.Random(3)
    acknowledged: dict[int, str] = {}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    for _ in range(20):
        with subprocess.Popen(
            [sys.executable, "-c", APPENDER, str(tmp_path)], stdout=subprocess.PIPE, env=environment, bufsize=0
        ) as child:
            assert child.stdout is not None
            said = b""
            wanted = chance.randint(1, 400)
            while said.count(b"\n") < wanted:
                chunk = child.stdout.read(65536)
                assert chunk, "the appender ended by itself"
                said += chunk
            child.send_signal(signal.SIGKILL)
            said += child.stdout.read()
        for line in said.split(b"\n")[:-1]:
            seq, leaf = line.split()
            acknowledged[int(seq)] = leaf.decode()
    leaves: dict[int, str] = {}
    Ledger.open(tmp_path, visit=lambda entry: leaves.__setitem__(entry.seq, entry.leaf.hex())).close()
    assert len(acknowledged) > 1000
    assert {seq: leaves.get(seq) for seq in acknowledged} == acknowledged
