"""Lives of a ledger on a disk that fails: each in a process of its own, forked from one into which failing.c is loaded.

    LD_PRELOAD=failing.so python -m tests.ledger.failing

A line on stdin is a life, as JSON: {"directory", "arm": what `fault_arm` takes, "no_room_ahead", "lone"}. On stdout it
says, a line each and at once: `told SEQ LEAF`, an entry was acknowledged; `refused CODE`, it never will be; `amiss
WHAT`, what should not be; `segments N`; `alone again`, of who appends alone; at the end `ended STATUS`, as
os.waitstatus_to_exitcode has it.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from immured.errors import ImmuredError, Refused
from immured.ledger import writer
from immured.ledger.ledger import Ledger
from immured.ledger.pending import Pending
from immured.ledger.rotation import Limits
from immured.ledger.saving import Pace
from tests.ledger.test_faults import Model
from tests.patience import PATIENCE_S

SEGMENT: Final = 6_000
LONGEST: Final = 60_000
SWIFT_S: Final = 0.25
"""What the writer is told of who appends alone: no disk is so slow, though many take longer than it would let pass."""
_ACTOR: Final = {"key": "k", "uid": 1}


def say(what: str) -> None:
    os.write(1, what.encode() + b"\n")


def hear(receipt: Any) -> None:
    say(f"told {receipt.seq} {receipt.leaf.hex()}")


def tried(what: Callable[[], object]) -> bool:
    """Whether it was acknowledged."""
    try:
        hear(what())
    except Refused as error:
        say(f"refused {error.code}")
        return False
    except BaseException as error:
        say(f"amiss {error!r}")
        return False
    return True


class Life:
    """Appends in every way that there is."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def entry(self, length: int = 100, **options: Any) -> Pending:
        return self.ledger.entry("run.accepted", _ACTOR, {"argv": ["x" * 100] * (length // 100)}, **options)

    def in_loop(self, many: int, rounds: int, length: int = 100) -> None:
        async def one() -> None:
            for _ in range(rounds):
                try:
                    hear(await asyncio.wait_for(self.entry(length).durable(), PATIENCE_S))
                except Refused as error:
                    say(f"refused {error.code}")
                except BaseException as error:
                    say(f"amiss {error!r}")

        async def all_of_them() -> None:
            await asyncio.gather(*(one() for _ in range(many)))

        asyncio.run(all_of_them())

    def in_threads(self, many: int, rounds: int) -> None:
        def one() -> None:
            for _ in range(rounds):
                tried(lambda: self.entry().wait(PATIENCE_S))

        threads = [threading.Thread(target=one, daemon=True) for _ in range(many)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S * 2)
            if thread.is_alive():
                say("amiss a thread waits")

    def alone(self, rounds: int) -> None:
        for _ in range(rounds):
            tried(lambda: self.entry(alone=True).wait(PATIENCE_S))

    def sealed(self) -> None:
        """Wait until the file that is written is another, or never will be."""
        until = time.monotonic() + PATIENCE_S
        while not self.ledger.status().segments and self.ledger.failure is None:
            if time.monotonic() > until:
                say("amiss nothing is sealed")
                return
            time.sleep(0.002)


def live(directory: Path) -> None:
    """Open, append alone and together until a file is sealed, and some more; close. Says of it what there is to say."""
    ledger = Ledger.open(
        directory,
        keeper=Model(),
        limits=Limits(size=SEGMENT),
        checkpoint_seconds=0.004,
        whole_bytes=0,
        pace=Pace(entries=8, seconds=0.02),
    )
    ledger.durable.pause = 0.0
    life = Life(ledger)
    life.alone(2)
    life.in_loop(5, 2)
    life.in_threads(3, 2)
    life.in_loop(1, 1, LONGEST)
    life.in_threads(2, 3)
    life.sealed()
    life.in_loop(3, 1)
    life.alone(1)
    ledger.close()
    say(f"segments {ledger.status().segments if ledger.failure is None else -1}")


def lone(directory: Path) -> None:
    """Append alone, past the sync that takes long, until most entries are durable by the caller's own hand again. The
    writer's threads look after other things now and then, and a sync may really take long, though seldom SWIFT_S."""
    writer._SWIFT_S = SWIFT_S
    ledger = Ledger.open(directory)
    life = Life(ledger)
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        itself = 0
        for _ in range(50):
            pending = life.entry(alone=True)
            itself += pending.is_durable()
            pending.wait(PATIENCE_S)
        if b"F" in (directory / "notes").read_bytes() and itself > 25:
            say("alone again")
            break
    ledger.close()


def child(order: dict[str, Any]) -> None:
    shim = ctypes.CDLL(None)
    shim.fault_arm.argtypes = (
        [ctypes.c_int] * 3 + [ctypes.c_long] + [ctypes.c_int] * 3 + [ctypes.c_long, ctypes.c_char_p]
    )
    if order["no_room_ahead"]:
        shim.fault_no_room_ahead()
    shim.fault_arm(*order["arm"], (order["directory"] + "/notes").encode())
    signal.alarm(int(PATIENCE_S * 2))
    try:
        (lone if order["lone"] else live)(Path(order["directory"]))
    except ImmuredError as error:
        say(f"refused {error.code}")
    except BaseException as error:
        say(f"amiss {error!r}")
        os._exit(1)
    os._exit(0)


def main() -> None:
    """As the module says."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            child(json.loads(line))
        _, status = os.waitpid(pid, 0)
        say(f"ended {os.waitstatus_to_exitcode(status)}")


if __name__ == "__main__":
    main()
