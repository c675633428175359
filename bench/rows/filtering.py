"""A tenant's thousand entries found among all of a large ledger's, by its index, as `immure ledger show` finds them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Final

from bench.bars import Shown
from bench.ground import Ground, Part
from bench.ledgers import RARE, RARE_ENTRIES, large
from immured.ledger.index import INDEX, Index
from immured.ledger.query import find
from immured.ledger.selection import Selection

__all__ = ["measure"]

ROUNDS: Final = 15
COMMANDS: Final = 5
CHOSEN: Final = Selection(tenant=RARE, types=("run.accepted",))


def measure(ground: Ground) -> Part:
    state = large(ground)
    directory = state / "ledger"
    (directory / INDEX).unlink(missing_ok=True)
    began = time.perf_counter()
    with Index.open(directory) as index:
        index.catch_up()
        size = index.size
    made = time.perf_counter() - began
    took: list[float] = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        found = sum(1 for _ in find(directory, CHOSEN))
        took.append((time.perf_counter() - began) * 1000)
        if found != RARE_ENTRIES:
            raise RuntimeError(f"{found} entries of {RARE}, not {RARE_ENTRIES}")
    command = _command(state)
    megabytes = (directory / INDEX).stat().st_size >> 20
    how = (
        f"{RARE_ENTRIES:,} of {size:,}, files opened anew; as a whole command {command:.0f} ms;"
        f" the index: {made:.1f} s to make, {megabytes:,} MiB"
    )
    return Part("Filtering", [Shown("filter", median(took), how, {"ms": took})])


def _command(state: Path) -> float:
    """Milliseconds of `immure ledger show`, its interpreter's start included."""
    words = [sys.executable, "-m", "immured.cli", "ledger", "show", "--state", str(state)]
    words += ["--tenant", RARE, "--type", "run.accepted", "--json"]
    took = []
    for _ in range(COMMANDS):
        began = time.perf_counter()
        done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
        took.append((time.perf_counter() - began) * 1000)
        if done.stdout.count(b"\n") != RARE_ENTRIES:
            raise RuntimeError("the command finds others")
    return median(took)
