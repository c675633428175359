"""How swiftly a ledger takes entries, beside a program that appends the same lines to a file and syncs each.

appends.py DIRECTORY ROUNDS BARE TOGETHER: a new ledger and a bare file in DIRECTORY; in each round BARE bare appends,
as many entries of one caller beside whom nobody works, then TOGETHER entries of 64 callers in one event loop, and as
many of 64 threads. Everybody waits until his own entry is durable before he makes the next. Says as JSON on stdout:
`bare`, `alone` (microseconds each), `paced`, `loop`, `threads` (bare appends, and entries, per second of each round),
`line` (bytes).

The process is set up as the daemon's is, and the ledger keeps for its next start what the daemon's keeps. Callers enter
what runs do, an intent and its outcome in turn, which are made before the clock starts.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from immured.ledger import Ledger, create
from immured.ledger.entry import Entry
from immured.ledger.keeping import Keep, Need
from immured.service import needed
from immured.service.daemon import SWITCH_S

CALLERS: Final = 64
KEY: Final = "ed25519:" + "d" * 32
DAEMON: Final = {"daemon": KEY}
ACTOR: Final = {
    "key": "ed25519:" + "a" * 32,
    "name": "agent",
    "uid": 1000,
    "gid": 1000,
    "pid": 4242,
    "exe": "/usr/bin/python3.11",
    "role": "operator",
    "tenant": "team",
}
HASH: Final = "sha256:" + "cd" * 32


class Keeper:
    """Decides what is kept as the daemon does, and has nothing to learn: the ledger is new."""

    rules: Final = needed.RULES

    def keep(self, type_: str, actor: Mapping[str, object], data: Mapping[str, object], /) -> Keep | None:
        return needed.keep(type_, actor, data)

    def visit(self, entry: Entry, needs: int = Need.ALL) -> None:  # noqa: ARG002  nobody asks
        return

    def forgotten(self, until_ms: int) -> None:  # noqa: ARG002
        return


class Run:
    """What is entered of one: its intent, and an outcome that lacks only the intent's index."""

    def __init__(self) -> None:
        now, sandbox = time.time_ns() // 1_000_000, f"s{os.urandom(8).hex()}"
        self.intent: dict[str, object] = {
            "cmd": "run",
            "nonce": os.urandom(16).hex(),
            "payload": os.urandom(32).hex(),
            "iat": now,
            "exp": now + 60_000,
            "sandbox": sandbox,
            "argv": ["/usr/bin/make", "-j4", "check"],
            "manifest": HASH,
            "plan": HASH,
            "enforcement": {"cpu": "cgroup", "memory": "cgroup", "pids": "cgroup", "wall": "timer", "disk": "quota"},
        }
        self.outcome: dict[str, object] = {
            "sandbox": sandbox,
            "intent": 0,
            "cause": "exited",
            "exit_code": 0,
            "usage": {
                "wall_ms": 12,
                "cpu_ms": 9,
                "user_ms": 6,
                "system_ms": 3,
                "memory_peak": 3_145_728,
                "processes": 4,
            },
            "events": {"oom": 0, "pids": 0},
            "streams": {"stdout": {"sha256": HASH[7:], "len": 1_412}, "stderr": {"sha256": HASH[7:], "len": 0}},
        }


class Appends:
    """One ledger, one bare file."""

    def __init__(self, directory: Path, bare: int, together: int) -> None:
        create(directory, KEY)
        self._ledger = Ledger.open(directory, keeper=Keeper())
        self._log = directory / "ledger" / "current.jsonl"
        self._file = os.open(
            directory / "bare", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        self._bare, self._together = bare, together
        self._runs = [Run() for _ in range(max(bare, together) // 2)]

    def lines(self) -> list[bytes]:
        """As they stand in the ledger: an intent's and its outcome's."""
        self.alone(2)
        return self._log.read_bytes().splitlines(keepends=True)[-2:]

    def bare(self, lines: list[bytes]) -> list[float]:
        took: list[float] = []
        for number in range(self._bare):
            line = lines[number % 2]
            start = time.perf_counter_ns()
            if os.write(self._file, line) != len(line):
                raise OSError("a short write")
            os.fdatasync(self._file)
            took.append((time.perf_counter_ns() - start) / 1e3)
        return took

    def alone(self, count: int) -> list[float]:
        took: list[float] = []
        intent = 0
        for number in range(count):
            run = self._runs[number // 2]
            run.outcome["intent"] = intent
            start = time.perf_counter_ns()
            if number % 2 == 0:
                pending = self._ledger.entry("run.accepted", ACTOR, run.intent, reserves_outcome=True, alone=True)
            else:
                pending = self._ledger.entry("run.finished", DAEMON, run.outcome, outcome_of=intent, alone=True)
            intent = pending.wait().seq
            took.append((time.perf_counter_ns() - start) / 1e3)
        return took

    def _paced(self, run: Callable[[], None]) -> float:
        start = time.perf_counter()
        run()
        return self._together / (time.perf_counter() - start)

    async def _caller(self, mine: list[Run]) -> None:
        entry = self._ledger.entry
        for run in mine:
            intent = (await entry("run.accepted", ACTOR, run.intent, reserves_outcome=True).durable()).seq
            run.outcome["intent"] = intent
            await entry("run.finished", DAEMON, run.outcome, outcome_of=intent).durable()

    def _thread(self, mine: list[Run]) -> None:
        entry = self._ledger.entry
        for run in mine:
            intent = entry("run.accepted", ACTOR, run.intent, reserves_outcome=True).wait().seq
            run.outcome["intent"] = intent
            entry("run.finished", DAEMON, run.outcome, outcome_of=intent).wait()

    def _shares(self) -> list[list[Run]]:
        return [self._runs[caller : self._together // 2 : CALLERS] for caller in range(CALLERS)]

    def loop(self) -> float:
        async def together() -> None:
            await asyncio.gather(*map(self._caller, self._shares()))

        return self._paced(lambda: asyncio.run(together()))

    def threads(self) -> float:
        crew = [threading.Thread(target=self._thread, args=(mine,)) for mine in self._shares()]

        def together() -> None:
            for one in crew:
                one.start()
            for one in crew:
                one.join()

        return self._paced(together)

    def close(self) -> None:
        self._ledger.close()
        os.close(self._file)


def main(directory: Path, rounds: int, bare: int, together: int) -> None:
    subject = Appends(directory, bare, together)
    lines = subject.lines()
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
    found: dict[str, list[float]] = {"bare": [], "paced": [], "alone": [], "loop": [], "threads": []}
    for _ in range(rounds):
        before = subject.bare(lines)
        found["alone"] += subject.alone(bare)
        found["loop"].append(subject.loop())
        after = subject.bare(lines)
        found["threads"].append(subject.threads())
        found["bare"] += before + after
        found["paced"].append(1e6 * 2 * bare / sum(before + after))
    subject.close()
    print(json.dumps({**found, "line": sum(map(len, lines)) / len(lines)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
