"""A large ledger to read: a state directory whose ledger a real `Ledger` wrote, of runs as a daemon enters them.

    large(ground)    # 1,000,000 entries, 1,000 of them a tenant's intents; made once, gone with the ground

A run is two entries, as docs/ledger.md has them, of the members and lengths that a daemon's have. Nothing in it is
under way, and every nonce is long out of date: a daemon that starts on it has nothing to mourn.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

from immured.client.throwaway import ThrowawayDaemon
from immured.ledger.ledger import Ledger

if TYPE_CHECKING:
    from bench.ground import Ground

__all__ = ["RARE", "RARE_ENTRIES", "TENANTS", "large", "standing"]

RARE: Final = "rare"
"""The tenant that has few of the entries, spread evenly."""
RARE_ENTRIES: Final = 1_000
"""So many intents are its own, however large the ledger is."""
TENANTS: Final = tuple(f"tenant-{number}" for number in range(20))
"""Whose the other intents are."""

_RUN_NS: Final = 1_000_000_000  # from one run to the next
_AT_ONCE: Final = 512  # runs between two looks at whether they are durable
_PROGRAMS: Final = (
    ["/bin/true"],
    ["/bin/sh", "-c", "make -j4 all && make check"],
    ["/usr/bin/python3", "-m", "pytest", "-q", "tests/unit"],
    ["/usr/bin/git", "-C", "/srv/repository", "log", "--oneline", "--decorate", "-n", "50"],
    ["/usr/bin/node", "--max-old-space-size=512", "build/index.js", "--watch=false", "--out", "/srv/out"],
)


def large(ground: Ground) -> Path:
    """The state directory of this run of the benchmark; whoever adds to the ledger leaves it good."""
    return ground.ledger


@contextmanager
def standing(entries: int) -> Iterator[Path]:
    """A state directory with a ledger of exactly so many entries, closed; removed afterwards."""
    parent = Path(tempfile.mkdtemp(prefix="immured-bench-"))
    try:
        parent.chmod(0o711)
        state = parent / "state"
        ThrowawayDaemon.immure("init", "--state", str(state))
        _write(state, entries)
        yield state
    finally:
        shutil.rmtree(parent)


def _write(state: Path, entries: int) -> None:
    dice = Random(7)
    began = time.time_ns() - (entries // 2 + 86_400) * _RUN_NS  # the last of them was a day ago
    with Ledger.open(state, clock=_ticking(began)) as ledger:
        stop = {"daemon": _KEY}, {"reason": "SIGTERM"}
        seq = ledger.entry("daemon.stopped", *stop).receipt.seq + 1  # behind the remark that the clock went back
        runs = (entries - seq) // 2
        rare = {nth * runs // RARE_ENTRIES for nth in range(RARE_ENTRIES)}
        for run in range(runs):
            tenant = RARE if run in rare else dice.choice(TENANTS)
            actor, data = _intent(dice, tenant, (began + run * _RUN_NS) // 1_000_000)
            intent = ledger.entry("run.accepted", actor, data, unhurried=True).receipt.seq
            last = ledger.entry("run.finished", {"daemon": _KEY}, _outcome(dice, data, intent), unhurried=True)
            seq = last.receipt.seq + 1  # where a file was sealed stands a remark on that
            if run % _AT_ONCE == 0:
                ledger.flush()
                last.wait()
        for _ in range(entries - seq):
            ledger.entry("daemon.stopped", *stop)


def _ticking(now_ns: int) -> Callable[[], int]:
    """A clock that is half a run later at each look."""

    def look() -> int:
        nonlocal now_ns
        now_ns += _RUN_NS // 2
        return now_ns

    return look


_KEY: Final = "ed25519:af6e0fbd904d4dbe3711c23fa14326f7"


def _intent(dice: Random, tenant: str, now_ms: int) -> tuple[dict[str, object], dict[str, object]]:
    actor: dict[str, object] = {
        "key": f"ed25519:{TENANTS.index(tenant) if tenant in TENANTS else 99:032x}",
        "name": f"{tenant}-ci",
        "uid": 1000,
        "gid": 1000,
        "pid": dice.randrange(300, 4_000_000),
        "exe": "/usr/bin/python3.11",
        "role": "operator",
        "tenant": tenant,
    }
    data: dict[str, object] = {
        "cmd": "run",
        "nonce": dice.randbytes(16).hex(),
        "payload": dice.randbytes(32).hex(),
        "iat": now_ms,
        "exp": now_ms + 60_000,
        "sandbox": f"s{dice.randbytes(10).hex()}",
        "argv": dice.choice(_PROGRAMS),
        "manifest": "sha256:0c4dc556a5f5113025b087aae93e43ecf61e73a91e54e7d0e1f54573010f2fcb",
        "plan": f"sha256:{dice.randbytes(32).hex()}",
        "enforcement": {
            "memory": "cgroup memory.max",
            "pids": "cgroup pids.max",
            "files": "rlimit_nofile",
            "wall": "launcher timer",
            "disk": "tmpfs size",
        },
    }
    return actor, data


def _outcome(dice: Random, intent: dict[str, object], seq: int) -> dict[str, object]:
    wall = dice.randrange(1, 40_000)
    return {
        "sandbox": intent["sandbox"],
        "intent": seq,
        "cause": "exited",
        "exit_code": 0 if dice.random() < 0.9 else 1,
        "usage": {
            "wall_ms": wall,
            "max_rss_bytes": dice.randrange(1 << 20, 1 << 30),
            "cpu_ms": wall // 2,
            "cpu_user_ms": wall // 3,
            "cpu_system_ms": wall // 6,
        },
        "events": {},
        "streams": {
            "stdout": {"length": dice.randrange(100_000), "sha256": dice.randbytes(32).hex()},
            "stderr": {"length": 0, "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        },
    }
