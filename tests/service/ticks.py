"""The clock of a file system, which may stand still for 10 ms: two changes within a tick leave the same times."""

from __future__ import annotations

from pathlib import Path

from tests.patience import until

__all__ = ["tick"]


def tick(path: Path, probe: Path) -> None:
    """Until whatever changes it gives it another time. `probe`: a file to try it with, on the same file system."""

    def later() -> bool:
        probe.write_bytes(b"")
        return probe.stat().st_ctime_ns > path.stat().st_ctime_ns

    until(later)
