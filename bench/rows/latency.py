"""One run: the floor, bubblewrap three ways, every other runner that is here, and the daemon; bursts and sporadic."""

from __future__ import annotations

from collections.abc import Sequence

from bench import measure as take
from bench.bars import Shown
from bench.ground import Ground, Part
from bench.report import comparison
from bench.subjects import Subject, bubblewrap, others
from bench.subjects.daemon import Immured
from bench.subjects.spawned import floor
from bench.walls import table

__all__ = ["measure"]

CPU_NOTE = """\
CPU: the command's and every process of the tool's that could be waited for; of immured the client's, the ledger's and
the pool's refilling too."""


def measure(ground: Ground) -> Part:
    running, refused, absent = others.found(ground.stack)
    subjects: list[Subject] = [
        floor(),
        ground.equal,
        bubblewrap.short(ground.bwrap),
        bubblewrap.bare(ground.bwrap),
        Immured(ground.daemon, native=True),
        Immured(ground.daemon, native=False),
        *running,
    ]
    looked = ground.looked(subjects)
    entered = [ground.stack.enter_context(subject) for subject in subjects]
    effort = ground.effort
    series = {
        "burst": take.burst(entered, runs=effort.runs, block=effort.block),
        "sporadic": take.sporadic(entered, runs=effort.sporadic),
    }
    part = Part("A signed run of /bin/true, and the same command through others", series=series)
    part.text = "\n\n".join(
        [
            *(comparison(name, taken, "bwrap", looked) for name, taken in series.items()),
            CPU_NOTE,
            table(looked[1:]),
            *(f"* {one.name} refuses this host: {one.words}" for one in refused),
            f"* not installed: {', '.join(absent) or 'nothing'}",
        ]
    )
    part.shown = [*(_ratio(name, taken) for name, taken in series.items()), _cpu(series["burst"])]
    return part


def _of(series: Sequence[take.Series], name: str) -> take.Series:
    return next(one for one in series if one.name == name)


def _ratio(scenario: str, series: Sequence[take.Series]) -> Shown:
    ours, theirs = _of(series, "immured"), _of(series, "bwrap")
    how = f"{ours.p50:.2f} ms against {theirs.p50:.2f} of {len(ours.walls)} runs each"
    return Shown(scenario, ours.p50 / theirs.p50, how, {"immured_ms": ours.p50, "bwrap_ms": theirs.p50})


def _cpu(series: Sequence[take.Series]) -> Shown:
    ours, theirs = _of(series, "immured"), _of(series, "bwrap")
    how = f"{ours.cpu_ms:.2f} ms a run against {theirs.cpu_ms:.2f}"
    return Shown("cpu", ours.cpu_ms / theirs.cpu_ms, how, {"immured_ms": ours.cpu_ms, "bwrap_ms": theirs.cpu_ms})
