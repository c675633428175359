"""What clerks hold while they walk what strangers made: two capabilities at most, and the calls of a list."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from immured.client.throwaway import ThrowawayDaemon
from tests.changes.project import CALLER, Captured
from tests.launcher.harness import descendants

_READS = 1 << 2 | 1 << 21  # CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN
_CLEARS = _READS | 1 << 0 | 1 << 1 | 1 << 3  # and CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER


def _statuses(daemon: ThrowawayDaemon, name: str) -> list[dict[str, str]]:
    found = []
    for process in descendants(daemon.pid):
        try:
            if Path(f"/proc/{process}/comm").read_text().strip() == name:
                lines = Path(f"/proc/{process}/status").read_text().splitlines()
                found.append({key: value.strip() for key, _, value in (line.partition(":") for line in lines)})
        except OSError:
            continue
    return found


def _while(
    captured: Captured, work: Callable[[], object], daemon: ThrowawayDaemon, name: str
) -> list[Mapping[str, str]]:
    """How the clerk stood at every look, once it had its filter. One that was too quick to be looked at works again."""
    seen: list[Mapping[str, str]] = []
    for _ in range(10):
        _lay(captured)
        worker = threading.Thread(target=work)
        worker.start()
        while worker.is_alive():
            seen += [one for one in _statuses(daemon, name) if one["Seccomp"] == "2"]
        worker.join()
        if seen:
            return seen
    pytest.fail(f"{name} was never seen")


def _lay(captured: Captured) -> None:
    captured.python(
        "import os\n"
        "for i in range(14): open(f'x{i}', 'wb').write(os.urandom(1000000))\n"
        "for i in range(3000): os.path.lexists(f'l{i}') and os.unlink(f'l{i}') or os.symlink('x', f'l{i}')"
    )


def test_the_clerk_for_changes_is_the_caller_and_may_read_besides(captured: Captured, daemon: ThrowawayDaemon) -> None:
    seen = _while(captured, captured.accept, daemon, "immured-changes")
    for one in seen:
        assert int(one["CapPrm"], 16) == _READS
        assert int(one["CapEff"], 16) & ~_READS == 0
        assert int(one["CapInh"], 16) == int(one["CapAmb"], 16) == 0
        assert one["Uid"].split() == [str(CALLER)] * 4
        assert one["NoNewPrivs"] == "1"


def test_the_clerk_that_clears_a_layer_has_what_layers_take(captured: Captured, daemon: ThrowawayDaemon) -> None:
    seen = _while(captured, captured.sandbox.changes.discard, daemon, "immured-changes")
    assert all(int(one["CapPrm"], 16) == _CLEARS and one["NoNewPrivs"] == "1" for one in seen)


def test_the_clerk_for_snapshots_is_the_daemons_user_and_may_read_besides(
    captured: Captured, daemon: ThrowawayDaemon
) -> None:
    names = (f"rights{number}" for number in itertools.count())
    seen = _while(captured, lambda: captured.sandbox.snapshot(next(names)), daemon, "immured-snapsho")
    owner = str((daemon.state / "snapshots").stat().st_uid)
    for one in seen:
        assert int(one["CapPrm"], 16) == int(one["CapEff"], 16) == _READS
        assert one["Uid"].split() == [owner] * 4
        assert one["Groups"] == ""
        assert one["NoNewPrivs"] == "1"
