"""The examination: every probe, in the order in which a person mends a host, and one verdict.

    report = examine(Path("/var/lib/immured"))
    report.able        # False: the daemon could not run here
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

from immured.host import probes_cgroups, probes_kernel, probes_resources, probes_storage
from immured.host.check import Check, Status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Report", "examine"]


@dataclass(frozen=True)
class Report:
    """All findings. The host can run the daemon when none of them failed; warnings name what is weaker there."""

    checks: tuple[Check, ...]

    @property
    def able(self) -> bool:
        return not any(check.status is Status.FAIL for check in self.checks)

    def counts(self) -> dict[str, int]:
        """How many findings of each status."""
        return {status.value: sum(check.status is status for check in self.checks) for status in Status}

    def as_map(self) -> dict[str, object]:
        """The shape of `immure doctor --json`."""
        return {
            "able": self.able,
            "kernel": platform.release(),
            "machine": platform.machine(),
            "counts": self.counts(),
            "checks": [check.as_map() for check in self.checks],
        }


def examine(state: Path) -> Report:
    """Look at this host, for a daemon whose state directory is (or would be) `state`. Takes well under a second."""
    return Report(tuple(_all(state)))


def _all(state: Path) -> Iterator[Check]:
    yield from probes_kernel.probe()
    yield from probes_cgroups.probe()
    yield from probes_storage.probe(state)
    yield from probes_resources.probe()
