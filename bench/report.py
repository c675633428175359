"""From series to words: a table with ratios, what was compared with what, and whether the bars hold."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.measure import Series
from bench.subjects import WALLS, Subject


@dataclass(frozen=True, slots=True)
class Bar:
    """A promise: `subject`'s median in `scenario` is at most `most` times `against`'s."""

    scenario: str
    subject: str
    against: str
    most: float


BARS = (Bar("burst", "immured", "bwrap", 0.8), Bar("sporadic", "immured", "bwrap", 0.8))


def table(scenario: str, series: Sequence[Series], against: str) -> str:
    """A Markdown table; ratios are of medians and of CPU time, to `against`."""
    base = next(one for one in series if one.name == against)
    rows = [
        f"| {scenario} | p50 ms | p90 ms | p99 ms | CPU ms a run | p50 / {against} | CPU / {against} |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    rows += [
        f"| {one.name} | {one.percentile(50):.2f} | {one.percentile(90):.2f} | {one.percentile(99):.2f} "
        f"| {one.cpu_ms:.2f} | {one.percentile(50) / base.percentile(50):.2f} | {one.cpu_ms / base.cpu_ms:.2f} |"
        for one in series
    ]
    return "\n".join(rows)


def walls(subjects: Sequence[Subject]) -> str:
    """Which subject lacks which wall: unequal isolation is compared only in words."""
    rows = []
    for subject in subjects:
        missing = [wall for wall in WALLS if wall not in subject.walls]
        more = sorted(subject.walls - set(WALLS))
        text = "equal walls" if not missing else "**unequal**: without " + ", ".join(missing)
        rows.append(f"* {subject.name}: {text}" + (f"; beyond them: {', '.join(more)}" if more else ""))
    return "\n".join(rows)


def verdicts(results: Mapping[str, Sequence[Series]]) -> tuple[str, bool]:
    """One line a bar, and whether all hold."""
    lines, good = [], True
    for bar in BARS:
        medians = {one.name: one.percentile(50) for one in results[bar.scenario]}
        ratio = medians[bar.subject] / medians[bar.against]
        held = ratio <= bar.most
        good = good and held
        verdict = "holds" if held else "MISSED"
        lines.append(f"* {bar.scenario}: {bar.subject} / {bar.against} = {ratio:.2f} (bar {bar.most:.2f}): {verdict}")
    return "\n".join(lines), good


def machine() -> str:
    """What it ran on, in a line."""
    python = platform.python_version()
    return f"{os.cpu_count()} processors, Linux {platform.release()}, {platform.machine()}, Python {python}"


def as_json(results: Mapping[str, Sequence[Series]]) -> str:
    """Every sample, nanoseconds, for whoever wants another statistic."""
    return json.dumps(
        {
            "machine": machine(),
            "scenarios": {
                scenario: [{"name": one.name, "wall_ns": one.walls, "cpu_ns": one.cpu} for one in series]
                for scenario, series in results.items()
            },
        }
    )
