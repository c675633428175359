"""Take the samples: subjects interleaved in blocks, bursts and sporadic runs apart.

A block is long enough (100 runs back to back) that a pool of prepared cells cannot hide its refilling, and short enough
that a noisy neighbour hits every subject alike.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.subjects import Subject


@dataclass(slots=True)
class Series:
    """What one subject showed: `walls` nanoseconds a run, `cpu` nanoseconds over all of them."""

    name: str
    walls: list[int] = field(default_factory=list)
    cpu: int = 0

    def percentile(self, percent: float) -> float:
        """Milliseconds; the nearest rank."""
        ordered = sorted(self.walls)
        rank = min(len(ordered) - 1, max(0, round(percent / 100 * len(ordered)) - 1))
        return ordered[rank] / 1e6

    @property
    def cpu_ms(self) -> float:
        return self.cpu / len(self.walls) / 1e6


def burst(subjects: Sequence[Subject], *, runs: int, block: int) -> list[Series]:
    return _measure(subjects, runs=runs, block=block, pause=0.0)


def sporadic(subjects: Sequence[Subject], *, runs: int, pause: float = 0.020) -> list[Series]:
    """Runs with a pause before each: what a write to cgroup.procs or a cold cache costs shows only here."""
    return _measure(subjects, runs=runs, block=10, pause=pause)


def _measure(subjects: Sequence[Subject], *, runs: int, block: int, pause: float) -> list[Series]:
    series = [Series(subject.name) for subject in subjects]
    for subject in subjects:
        for _ in range(10):
            subject.run()
    done = 0
    while done < runs:
        size = min(block, runs - done)
        for subject, taken in zip(subjects, series, strict=True):
            before = subject.cpu_total()
            for _ in range(size):
                if pause:
                    time.sleep(pause)
                sample = subject.run()
                taken.walls.append(sample.wall)
                if sample.cpu is not None:
                    taken.cpu += sample.cpu
            if before is not None:
                after = subject.cpu_total()
                assert after is not None
                taken.cpu += after - before
        done += size
    return series
