"""How evenly a fixed computation runs: its own CPU time, inside and outside in turn."""

from __future__ import annotations

import subprocess

from bench.bars import Shown
from bench.figures import ratio_of_medians, spread, trimmed
from bench.ground import Ground, Part
from bench.programs import compiled

__all__ = ["measure"]

ROUNDS = "100"


def measure(ground: Ground) -> Part:
    program = compiled("compute")
    files = {"/tmp/compute": program.read_bytes()}
    inside: list[float] = []
    outside: list[float] = []
    with ground.daemon.client() as client:
        for _ in range(ground.effort.spread):
            told = subprocess.run([program, ROUNDS], check=True, capture_output=True, timeout=60).stdout
            outside.append(float(told.split()[0]))
            result = client.run(["/tmp/compute", ROUNDS], files=files)
            if result.exit_code != 0:
                why = f"the computation does not run inside: {result.cause} {result.stderr.decode()}"
                return Part("A fixed computation", [Shown("spread", None, why, failed=True)])
            inside.append(float(result.stdout.split()[0]))
    # The middle nine tenths: one interruption by the host is neither's spread.
    kept_in, kept_out = trimmed(inside), trimmed(outside)
    how = (
        f"coefficients of variation {spread(kept_in):.4f} and {spread(kept_out):.4f}, of all samples "
        f"{spread(inside):.4f} and {spread(outside):.4f}; its median inside is "
        f"{ratio_of_medians(inside, outside):.3f} of that outside; {len(inside)} runs each"
    )
    shown = Shown("spread", spread(kept_in) / spread(kept_out), how, {"inside_ns": inside, "outside_ns": outside})
    return Part("A fixed computation", [shown])
