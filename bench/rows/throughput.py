"""Eight clients at once, each with one open connection, against as many bwraps at once as does bwrap the most good."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final

from bench.bars import Shown
from bench.ground import Ground, Part
from bench.programs import Answering
from bench.subjects.daemon import native_client

__all__ = ["measure"]

CLIENTS: Final = 8
AT_ONCE: Final = (1, 2, 4, 8, 16)


def measure(ground: Ground) -> Part:
    clients = [native_client(ground.daemon) for _ in range(CLIENTS)]
    parents = [ground.equal.parent() for _ in range(max(AT_ONCE))]
    slice_ms = ground.effort.slice_ms
    ours: list[float] = []
    theirs: dict[int, list[float]] = {count: [] for count in AT_ONCE}
    try:
        rate(clients, 200)  # the pool grows under load: that is not what is measured
        for _ in range(ground.effort.rounds):
            for count in AT_ONCE:
                theirs[count].append(rate(parents[:count], slice_ms))
            ours.append(rate(clients, slice_ms))
    finally:
        for program in (*clients, *parents):
            program.end()
    medians = {count: median(rates) for count, rates in theirs.items()}
    best = max(medians, key=medians.__getitem__)
    value = median(ours) / medians[best]
    rows = "\n".join(f"| bwrap, {count} at once | {medians[count]:.0f} |" for count in AT_ONCE)
    text = f"| | runs a second |\n|---|---:|\n{rows}\n| immured, {CLIENTS} clients | {median(ours):.0f} |"
    how = f"{median(ours):.0f} against {medians[best]:.0f} a second ({best} bwraps at once)"
    figures: dict[str, object] = {"immured": ours, "bwrap": theirs}
    return Part("Runs per second", [Shown("throughput", value, how, figures)], text)


def rate(programs: Sequence[Answering], slice_ms: int) -> float:
    """Runs a second of all of them together, each back to back for so long."""
    for program in programs:
        program.ask(str(slice_ms))
    return sum(runs / (took / 1e9) for runs, took in [program.answer() for program in programs])
