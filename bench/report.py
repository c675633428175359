"""From series to words: tables with ratios, the machine, and the file with every sample."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict

from bench.bars import BARS, Shown, verdict
from bench.ground import Part
from bench.measure import Series
from bench.walls import Looked, missing

__all__ = ["as_json", "comparison", "lines", "machine"]


def comparison(scenario: str, series: Sequence[Series], against: str, looked: Sequence[Looked] = ()) -> str:
    """A Markdown table; ratios are of medians and of CPU time, to `against`. Who of `looked` lacks walls is marked."""
    unequal = {one.name for one in looked if missing(one.walls)}
    base = next(one for one in series if one.name == against)
    rows = [
        f"| {scenario} | runs | p50 ms | p90 ms | p99 ms | CPU ms a run | p50 / {against} | CPU / {against} |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for one in series:
        name = f"{one.name} (unequal)" if one.name in unequal else one.name
        times = " | ".join(f"{one.percentile(percent):.2f}" for percent in (50, 90, 99))
        ratios = f"{one.p50 / base.p50:.2f} | {_times(one.cpu_ms, base.cpu_ms)}"
        rows.append(f"| {name} | {len(one.walls)} | {times} | {one.cpu_ms:.2f} | {ratios} |")
    return "\n".join(rows)


def _times(one: float, other: float) -> str:
    return f"{one / other:.2f}" if other else "-"


def lines(shown: Sequence[Shown]) -> str:
    """What stands behind each figure, one line a bar."""
    return "\n".join(f"* {one.name}: {one.how}" for one in shown)


def machine() -> str:
    """What it was measured on, in one line."""
    return (
        f"{os.cpu_count()} processors, Linux {platform.release()}, {platform.machine()}, Python "
        f"{platform.python_version()}; load before: {os.getloadavg()[0]:.1f}"
    )


def as_json(where: str, parts: Sequence[Part]) -> str:
    """Every figure and every sample."""
    return json.dumps(
        {
            "machine": where,
            "bars": [
                {**asdict(one), "bar": BARS[one.name].bar, "verdict": verdict(one).value}
                for part in parts
                for one in part.shown
            ],
            "series": {
                name: {one.name: {"wall_ns": one.walls, "cpu_ns": one.cpu} for one in taken}
                for part in parts
                for name, taken in part.series.items()
            },
        },
        indent=1,
    )
