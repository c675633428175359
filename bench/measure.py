"""Take the samples: subjects interleaved in blocks, bursts and sporadic runs apart.

A block is long enough (100 runs back to back) that a pool of prepared cells cannot hide its refilling, and short enough
that a noisy neighbour hits every subject alike. A slow subject gets fewer runs in its blocks, never fewer blocks: one
whose best run takes longer than 20 ms, which no subject of a bar does.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.figures import percentile
from bench.subjects import Subject

__all__ = ["Series", "burst", "sporadic"]

WARM_UP = 10
LONGEST_BLOCK_NS = 2_000_000_000
FEWEST = 3


@dataclass(slots=True)
class Series:
    """What one subject showed: `walls` nanoseconds a run, `cpu` nanoseconds over all of them."""

    name: str
    walls: list[int] = field(default_factory=list)
    cpu: int = 0

    def percentile(self, percent: float) -> float:
        """Milliseconds."""
        return percentile(self.walls, percent) / 1e6

    @property
    def p50(self) -> float:
        return self.percentile(50)

    @property
    def cpu_ms(self) -> float:
        return self.cpu / len(self.walls) / 1e6


def burst(subjects: Sequence[Subject], *, runs: int, block: int, longest_ns: int = LONGEST_BLOCK_NS) -> list[Series]:
    """Runs back to back. `longest_ns`: what a block of 100 may take; slower subjects run less often."""
    return _measure(subjects, runs=runs, block=block, pause=0.0, longest_ns=longest_ns)


def sporadic(subjects: Sequence[Subject], *, runs: int, pause: float = 0.020) -> list[Series]:
    """Runs with a pause before each: what a write to cgroup.procs or a cold cache costs shows only here."""
    return _measure(subjects, runs=runs, block=10, pause=pause)


def block_size(block: int, one_run_ns: float, longest_ns: float = LONGEST_BLOCK_NS) -> int:
    """How many runs of this length make a block."""
    return max(min(block, FEWEST), min(block, int(longest_ns / one_run_ns)))


def _measure(
    subjects: Sequence[Subject], *, runs: int, block: int, pause: float, longest_ns: int = LONGEST_BLOCK_NS
) -> list[Series]:
    series = [Series(subject.name) for subject in subjects]
    longest = longest_ns * block / 100
    sizes = [block_size(block, _warm_up(subject), longest) for subject in subjects]
    done = 0
    while done < runs:
        share = min(block, runs - done) / block
        for subject, taken, size in zip(subjects, series, sizes, strict=True):
            _block(subject, taken, max(1, round(size * share)), pause)
        done += block
    return series


def _warm_up(subject: Subject) -> float:
    """Nanoseconds of its best run: a noisy neighbour makes nobody slow."""
    return min(subject.run().wall for _ in range(WARM_UP))


def _block(subject: Subject, taken: Series, size: int, pause: float) -> None:
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
