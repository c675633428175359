"""The examination: every probe, in the order in which a person mends a host, and one verdict.

report = examine(Daemon(Path("/var/lib/immured")))
report.able        # False: the daemon could not run here
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from immured.host import probes_cgroups, probes_ids, probes_kernel, probes_ladder, probes_resources, probes_storage
from immured.host.check import Check, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Daemon", "Report", "examine"]

_RUNGS: Final = ("namespace.", "cgroup.", "kernel.seccomp", "kernel.landlock", "storage.idmap", "kernel.openat2",
                 "kernel.pidfd", "kernel.mount-setattr", "kernel.memfd")  # fmt: skip


@dataclass(frozen=True)
class Daemon:
    """The daemon that the host is examined for: its state directory, and what its configuration says of ids.

    `slots`: the configured ids of its sandboxes, None: a block of ours. `uid` and `account`: whom its broker becomes;
    `problem`: why it can become nobody.
    """

    state: Path
    slots: range | None = None
    uid: int | None = None
    account: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Report:
    """All findings. The host can run the daemon when none of them failed; warnings name what is weaker there."""

    checks: tuple[Check, ...]
    release: str = field(default_factory=platform.release)

    @property
    def able(self) -> bool:
        return not any(check.status is Status.FAIL for check in self.checks)

    @property
    def ladder(self) -> tuple[Check, ...]:
        """The rungs: walls, and what makes them stronger, each of which stands here or does not."""
        return tuple(check for check in self.checks if check.stands is not None)

    def counts(self) -> dict[str, int]:
        """How many findings of each status."""
        return {status.value: sum(check.status is status for check in self.checks) for status in Status}

    def as_map(self) -> dict[str, object]:
        """The shape of `immure doctor --json`."""
        return {
            "able": self.able,
            "kernel": self.release,
            "machine": platform.machine(),
            "counts": self.counts(),
            "ladder": {check.name: check.stands for check in self.ladder},
            "checks": [check.as_map() for check in self.checks],
        }


def examine(daemon: Daemon) -> Report:
    """Look at this host, for a daemon that runs here or would. Takes well under a second."""
    return Report(tuple(map(_as_rung, _all(daemon))))


def _all(daemon: Daemon) -> Iterator[Check]:
    yield from probes_kernel.probe()
    yield from probes_ladder.probe(daemon.state)
    yield from probes_cgroups.probe()
    yield from probes_storage.probe(daemon.state)
    yield from probes_ids.probe(daemon.state, daemon.slots, daemon.uid)
    yield probes_ids.broker(daemon.state, daemon.uid, daemon.account, daemon.problem)
    yield from probes_resources.probe()


def _as_rung(check: Check) -> Check:
    """A finding about a wall says whether it stands, unless it says so itself or could not be tried."""
    if check.stands is not None or check.status is Status.INFO or not check.name.startswith(_RUNGS):
        return check
    return replace(check, stands=check.status is Status.OK)
