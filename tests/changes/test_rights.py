"""What clerks hold while they walk what strangers made: two capabilities at most, and the calls of a list."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from immured.client.throwaway import ThrowawayDaemon
from tests.changes.project import CALLER, Captured
from tests.held import asked_before_opening
from tests.launcher.harness import descendants

_READS = 1 << 2 | 1 << 21  # CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN
_CLEARS = _READS | 1 << 0 | 1 << 1 | 1 << 3  # and CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER


def _status(process: int) -> dict[str, str]:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _in_the_layer(daemon: ThrowawayDaemon, name: str) -> list[Path]:
    """What bears that name in a layer, or in a layer over its directory, by the descriptors of who keeps them."""
    found = []
    for process in descendants(daemon.pid):
        with contextlib.suppress(OSError):  # it ended while it was looked at
            places = [Path(f"/proc/{process}/fd/{number}") for number in os.listdir(f"/proc/{process}/fd")]
            found += [place / name for place in places if os.path.isdir(place) and os.path.exists(place / name)]
    return found


def _while(work: Callable[[], object], name: str, *opened: Path) -> list[Mapping[str, str]]:
    """How the clerk stood at each of these that it opened while it worked."""
    seen: list[Mapping[str, str]] = []
    worker = threading.Thread(target=work)
    with asked_before_opening(*opened) as asked:
        worker.start()
        while found := asked.who(over=lambda: not worker.is_alive()):
            process, file = found
            status = _status(process)
            asked.let(file)
            assert (status["Name"], status["Seccomp"]) == (name, "2")
            seen.append(status)
    worker.join()
    assert seen
    return seen


def test_the_clerk_for_changes_is_the_caller_and_may_read_besides(captured: Captured) -> None:
    captured.sh("echo 3 >> a.txt")
    seen = _while(captured.accept, "immured-changes", captured.path / "a.txt")
    for one in seen:
        assert int(one["CapPrm"], 16) == _READS
        assert int(one["CapEff"], 16) & ~_READS == 0
        assert int(one["CapInh"], 16) == int(one["CapAmb"], 16) == 0
        assert one["Uid"].split() == [str(CALLER)] * 4
        assert one["NoNewPrivs"] == "1"


def test_the_clerk_that_clears_a_layer_has_what_layers_take(captured: Captured, daemon: ThrowawayDaemon) -> None:
    captured.sh("mkdir rights-cleared; echo x > rights-cleared/x")
    seen = _while(captured.sandbox.changes.discard, "immured-changes", *_in_the_layer(daemon, "rights-cleared"))
    assert all(int(one["CapPrm"], 16) == _CLEARS and one["NoNewPrivs"] == "1" for one in seen)


def test_the_clerk_for_snapshots_is_the_daemons_user_and_may_read_besides(
    captured: Captured, daemon: ThrowawayDaemon
) -> None:
    captured.sh("echo x > rights-saved")
    held = _in_the_layer(daemon, "rights-saved")
    seen = _while(lambda: captured.sandbox.snapshot("rights"), "immured-snapsho", *held)
    owner = str((daemon.state / "snapshots").stat().st_uid)
    for one in seen:
        assert int(one["CapPrm"], 16) == int(one["CapEff"], 16) == _READS
        assert one["Uid"].split() == [owner] * 4
        assert one["Groups"] == ""
        assert one["NoNewPrivs"] == "1"
