"""Entries made durable: one caller alone, and 64 at once, beside a bare append and fdatasync of the same lines.

A bare append's median decides, not how many there were in a second: where others sync on the same disk, a few of them
take many times as long, and a bar would be held by who waits for the disk most.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Final

from bench.bars import Shown
from bench.figures import percentile
from bench.ground import Ground, Part

__all__ = ["measure"]

_PROGRAM: Final = "bench.programs.appends"
_NO_DISK_US: Final = 15.0  # a sync that takes less reaches no disk: there is nothing to share


def measure(ground: Ground) -> Part:
    effort = ground.effort
    with tempfile.TemporaryDirectory(prefix="immured-bench-") as place:
        Path(place, "state").mkdir()
        sizes = [effort.batches, effort.runs // 5, 64 * effort.block]
        command = [sys.executable, "-m", _PROGRAM, f"{place}/state", *map(str, sizes)]
        said = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    found = json.loads(said)
    bare, alone = median(found["bare"]), median(found["alone"])
    loop, threads, paced = (median(found[name]) for name in ("loop", "threads", "paced"))
    if bare < _NO_DISK_US:
        why = f"an append and fdatasync in {tempfile.gettempdir()} takes {bare:.1f} us: no disk is behind it (TMPDIR)"
        return Part("The ledger's appends", [Shown("appends", None, why), Shown("append", None, why)])
    each = f"{found['line']:.0f} bytes appended and synced {bare:.0f} us (p90 {percentile(found['bare'], 90):.0f})"
    many = f"{loop:,.0f} a second in one event loop, {threads:,.0f} of 64 threads; {each}, {paced:,.0f} a second"
    one = f"{alone:.0f} us (p90 {percentile(found['alone'], 90):.0f}); {each}"
    figures: dict[str, object] = {f"{name}_{unit}": found[name] for name, unit in _UNITS.items()}
    return Part(
        "The ledger's appends",
        [Shown("appends", loop * bare / 1e6, many, figures), Shown("append", alone / bare, one)],
    )


_UNITS: Final = {"bare": "us", "alone": "us", "paced": "per_s", "loop": "per_s", "threads": "per_s"}
