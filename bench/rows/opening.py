"""A large ledger opened, by itself and by a daemon that starts: nothing of it is read that need not be."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Final

from bench.bars import Shown
from bench.ground import Ground, Part
from bench.ledgers import large
from bench.memory import parse_kib
from immured.client.throwaway import ThrowawayDaemon

__all__ = ["measure"]

ROUNDS: Final = 7
STARTS: Final = 5
_FIRST_S: Final = 600  # who reads all of it, once: what wrote it kept nothing for a start


def measure(ground: Ground) -> Part:
    state = large(ground)
    first = _opened(state)
    opened = [_opened(state) for _ in range(ROUNDS)]
    alone = median(one["seconds"] for one in opened)
    starts: dict[str, list[float]] = {"large": [], "new": []}
    peak = 0
    with ThrowawayDaemon() as new:
        new.stop()
        for _ in range(STARTS):
            starts["new"].append(_started(new.state)[0])
            took, kib = _started(state)
            starts["large"].append(took)
            peak = max(peak, kib)
    added = median(starts["large"]) - median(starts["new"])
    size = sum(path.stat().st_size for path in (state / "ledger").glob("*.jsonl"))
    how = (
        f"{ground.effort.entries:,} entries, {size / 1e6:.0f} MB; {alone:.3f} s by itself, and {added:.3f} s "
        f"that a daemon takes longer to start than on a new ledger ({median(starts['new']):.2f} s); all of it read: "
        f"{first['seconds']:.1f} s"
    )
    memory = max(*(one["peak_kib"] for one in opened), peak) / 1024
    before = max(one["before_kib"] for one in opened) / 1024
    held = f"of the process which opens it, and of that daemon's broker; {before:.0f} MiB before it was opened"
    figures: dict[str, object] = {"opened": opened, "starts_s": starts, "first": first}
    return Part(
        "Opening",
        [
            Shown("ledger-open", max(alone, added), how, figures),
            Shown("ledger-open-memory", memory, held),
        ],
    )


def _opened(state: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.programs.opening", str(state)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=_FIRST_S)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _started(state: Path) -> tuple[float, int]:
    """Seconds until it serves, and the most KiB that its broker held until then."""
    began = time.perf_counter()
    with ThrowawayDaemon(state=state) as daemon:
        took = time.perf_counter() - began
        return took, parse_kib(Path(f"/proc/{daemon.pid}/status").read_text())["VmHWM"]
