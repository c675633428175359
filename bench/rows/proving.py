"""One entry of a large ledger proven: its line, its path and its signed head, checked, as a daemon hands it out."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from random import Random
from statistics import median, quantiles
from typing import Final

from bench.bars import Shown
from bench.ground import Ground, Part
from bench.ledgers import large
from immured.ledger.key_rotation import KeyHistory
from immured.ledger.keys import load_vkeys
from immured.ledger.proving import Prover

__all__ = ["measure"]

PROOFS: Final = 300
COMMANDS: Final = 7


def measure(ground: Ground) -> Part:
    state = large(ground)
    directory = state / "ledger"
    keys = load_vkeys(state / "keys" / "ledger.vkey")
    with Prover.open(directory) as prover:
        size = prover.prove(0).check(KeyHistory(keys)).checkpoint.size
    dice = Random(11)
    took: list[float] = []
    for _ in range(PROOFS):
        seq = dice.randrange(size)
        began = time.perf_counter()
        with Prover.open(directory, stored_only=True) as prover:
            made = prover.prove(seq).encode()
        took.append((time.perf_counter() - began) * 1000)
        if len(made) < 100:
            raise RuntimeError("no proof")
    command = _command(state, size // 3)
    worst = quantiles(took, n=100)[98]
    how = f"one of {size:,}, files opened for each: p99 {worst:.2f} ms; as a whole command {command:.0f} ms"
    return Part("Proofs", [Shown("prove", median(took), how, {"ms": took})])


def _command(state: Path, seq: int) -> float:
    """Milliseconds of `immure ledger prove`, its interpreter's start included."""
    words = [sys.executable, "-m", "immured.cli", "ledger", "prove", str(seq), "--state", str(state)]
    took = []
    for _ in range(COMMANDS):
        began = time.perf_counter()
        subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
        took.append((time.perf_counter() - began) * 1000)
    return median(took)
