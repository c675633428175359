"""A large ledger verified, every line, link, node of the tree and signed head: beside `sha256sum` of the same files."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

from bench.bars import Shown
from bench.ground import Ground, Part
from bench.ledgers import large

__all__ = ["measure"]

ROUNDS: Final = 7


def measure(ground: Ground) -> Part:
    state = large(ground)
    beside = Path(sys.executable).with_name("immure")
    immure = str(beside) if beside.exists() else shutil.which("immure")
    if immure is None:
        why = "no `immure` beside this Python, and none on PATH"
        return Part("Verification", [Shown("verify", None, why, failed=True)])
    files = sorted(str(path) for path in (state / "ledger").glob("*.jsonl"))
    size = sum(Path(name).stat().st_size for name in files)
    hashed, verified = ["sha256sum", "--", *files], [immure, "ledger", "verify", "--state", str(state)]
    _took(hashed)  # whoever is first would read from the disk
    pairs = [(_took(hashed), _took(verified)) for _ in range(ROUNDS)]
    plain, ours = (median(side) for side in zip(*pairs, strict=True))
    ratio = median(one / other for one, other in pairs)
    what = f"{size / 1e6:.0f} MB, files: {len(files)}"
    how = f"{what}; {ours:.2f} s, sha256sum {plain:.2f} s: {size / ours / 1e6:.0f} and {size / plain / 1e6:.0f} MB/s"
    figures: dict[str, object] = {"sha256sum_s": [one for one, _ in pairs], "verify_s": [one for _, one in pairs]}
    return Part("Verification", [Shown("verify", ratio, how, figures)])


def _took(command: Sequence[str]) -> float:
    """Seconds of the whole command. Raises CalledProcessError where it fails."""
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began
