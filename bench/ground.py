"""What the rows stand on: how much is asked for, bubblewrap, and a daemon that has served nobody yet."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from bench import ledgers
from bench.bars import Shown
from bench.measure import Series
from bench.subjects import Subject, bubblewrap
from bench.subjects.daemon import Immured
from bench.subjects.spawned import Spawned, floor
from bench.walls import Inside, Looked, look, parse_probe
from immured.client.throwaway import ThrowawayDaemon
from immured.errors import ConfigurationError

__all__ = ["Effort", "Ground", "Part"]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much of each is measured."""

    runs: int = 1000
    block: int = 100
    sporadic: int = 200
    slice_ms: int = 1000
    rounds: int = 3
    live: int = 500
    idle_s: float = 10.0
    batches: int = 12
    spread: int = 200
    commands: int = 100
    vm_runs: int = 2_000
    many: int = 1_000
    batch: int = 1_000
    forks: int = 50
    transfer_mib: int = 1024
    vm_runners: bool = True
    entries: int = 1_000_000

    @classmethod
    def quick(cls) -> Effort:
        """Enough to see that everything works, not to believe a percentage."""
        return cls(200, 50, 30, 300, 2, 100, 2.0, 4, 40, 20, 100, 200, 100, 10, 128, vm_runners=False, entries=100_000)


@dataclass(slots=True)
class Part:
    """What a row gives: its bars, its words for the report, its samples for the plot and the file."""

    title: str
    shown: list[Shown] = field(default_factory=list)
    text: str = ""
    series: Mapping[str, Sequence[Series]] = field(default_factory=dict)


@dataclass
class Ground:
    """Shared by the rows; what one of them starts ends with `stack`, or earlier."""

    effort: Effort
    stack: ExitStack

    @cached_property
    def bwrap(self) -> str:
        found = shutil.which("bwrap")
        if found is None:
            raise ConfigurationError("no_bwrap", "bubblewrap is what this compares with", "apt-get install bubblewrap")
        return found

    @cached_property
    def daemon(self) -> ThrowawayDaemon:
        return self.stack.enter_context(ThrowawayDaemon())

    @cached_property
    def ledger(self) -> Path:
        """A state directory with a ledger of `effort.entries` (bench/ledgers.py)."""
        return self.stack.enter_context(ledgers.standing(self.effort.entries))

    @cached_property
    def host(self) -> Inside:
        """What the probe sees without walls."""
        return parse_probe(floor().probe())

    @cached_property
    def model(self) -> Inside:
        """What it sees in a default run."""
        return parse_probe(Immured(self.daemon, native=True).probe())

    def looked(self, subjects: Sequence[Subject]) -> list[Looked]:
        """What walls each stands up."""
        return [look(one.name, one.how, one.told, one.probe(), self.host, self.model) for one in subjects]

    @cached_property
    def equal(self) -> Spawned:
        """bubblewrap with a default run's walls and view."""
        return bubblewrap.equal(self.bwrap, sorted(self.model.places))
