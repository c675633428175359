"""Appends to a ledger from many threads, and is killed, over and over: what was acknowledged has to be there.

    python -m tests.ledger.kills DIRECTORY --kills 1000

Each round is a process of its own, forked from this one, which opens the ledger in DIRECTORY (made where there is
none), recovers it, appends, rotates and saves its state as fast as it can, and gets a SIGKILL in the midst of it, or
while it still opens it. At the end all of it is verified, and each receipt that ever came is looked for.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import signal
import struct
import sys
import threading
import time
from pathlib import Path

from immured.errors import Refused
from immured.ledger.entry import Entry
from immured.ledger.keys import load_vkeys
from immured.ledger.ledger import Ledger, create
from immured.ledger.rotation import Limits
from immured.ledger.saving import Pace
from immured.ledger.verify import verify_file
from tests.ledger.sample import DAEMON
from tests.ledger.test_faults import Model

_THREADS = 8
_RECEIPT = struct.Struct(">Q32s")


def open_busily(directory: Path, keeper: Model) -> Ledger:
    """With everything going on that can be under way when the process dies."""
    return Ledger.open(
        directory,
        keeper=keeper,
        limits=Limits(size=60_000),
        checkpoint_seconds=0.005,
        whole_bytes=0,
        pace=Pace(entries=40, seconds=0.02),
    )


def _append(directory: Path, told: int) -> None:
    ledger = open_busily(directory, Model())
    ledger.durable.pause = 0.0

    def work(number: int) -> None:
        chance = random.Random(number)
        actor = {"key": "k", "uid": number}
        try:
            while True:
                made = ledger.entry(
                    "run.accepted", actor, {"argv": ["x" * chance.randrange(600)]}, reserves_outcome=True
                )
                os.write(told, _RECEIPT.pack(*made.wait(60)))
                if chance.random() < 0.8:
                    over = {"intent": made.receipt.seq}
                    done = ledger.entry("run.finished", actor, over, outcome_of=made.receipt.seq)
                    os.write(told, _RECEIPT.pack(*done.wait(60)))
        except Refused as error:
            os.write(2, f"{error}\n".encode())
            os._exit(3)

    for number in range(_THREADS):
        threading.Thread(target=work, args=(number,), daemon=True).start()
    threading.Event().wait()


def one_life(directory: Path, chance: random.Random, told: dict[int, bytes]) -> None:
    """Fork one that appends, and kill it: soon after some receipts, or at some moment whatever it does."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            _append(directory, write)
        finally:
            os._exit(4)
    os.close(write)
    said = bytearray()
    wanted = chance.choice([0, 1, 8, 40, 150]) * _RECEIPT.size
    deadline = time.monotonic() + (chance.random() * 0.02 if not wanted else 30)
    while len(said) < max(wanted, 1) and time.monotonic() < deadline:
        if select.select([read], [], [], max(0.0, deadline - time.monotonic()))[0]:
            chunk = os.read(read, 65_536)
            if not chunk:
                break
            said += chunk
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    while chunk := os.read(read, 65_536):
        said += chunk
    os.close(read)
    if not os.WIFSIGNALED(status):
        raise AssertionError(f"it ended by itself, with {os.waitstatus_to_exitcode(status)}")
    told.update(_RECEIPT.iter_unpack(bytes(said)))


def check(directory: Path, told: dict[int, bytes]) -> dict[str, int]:
    """Recover, verify all, and look for every receipt. Raises AssertionError."""
    swift, whole = Model(), Model()
    with open_busily(directory, swift):
        pass
    (directory / "ledger" / "resume").unlink()
    with open_busily(directory, whole):
        pass
    leaves: dict[int, bytes] = {}

    def see(entry: Entry) -> None:
        leaves[entry.seq] = entry.leaf

    files = directory / "ledger"
    report = verify_file(files, files / "checkpoints", load_vkeys(directory / "keys" / "ledger.vkey"), visit=see)
    if not report.whole:
        raise AssertionError(str(report))
    lost = [seq for seq, leaf in told.items() if leaves.get(seq) != leaf]
    if lost:
        raise AssertionError(f"{len(lost)} of {len(told)} that were acknowledged are not there: {sorted(lost)[:10]}")
    if swift.knows() != whole.knows():
        raise AssertionError("by the resume another state is known than by all entries")
    segments = sum(1 for path in (directory / "ledger").glob("0*.jsonl"))
    return {"entries": report.entries, "acknowledged": len(told), "segments": segments, "open": len(whole.open)}


def main() -> None:
    """As the module says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no more rounds after so long,")
    parser.add_argument("--fewest", type=int, default=0, help="but for these")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if not (given.directory / "ledger").exists():
        create(given.directory, DAEMON)
    chance, told, kills = random.Random(given.seed), dict[int, bytes](), 0
    until = time.monotonic() + given.seconds
    while kills < given.kills and (kills < given.fewest or time.monotonic() < until):
        one_life(given.directory, chance, told)
        kills += 1
    sys.stdout.write(json.dumps({"kills": kills, **check(given.directory, told)}) + "\n")


if __name__ == "__main__":
    main()
