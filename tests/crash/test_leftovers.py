"""The count of what is left finds it while it is there."""

from __future__ import annotations

import threading

import pytest

from immured.client.throwaway import ThrowawayDaemon
from tests.crash.leftovers import leftovers
from tests.crash.test_kill import wait_for

pytestmark = pytest.mark.needs_root


def test_a_living_daemon_and_its_run_are_found() -> None:
    with (
        ThrowawayDaemon() as daemon,
        daemon.client() as client,
    ):
        running = threading.Thread(target=client.run, args=(["/bin/sleep", "2"],))
        running.start()
        wait_for(lambda: any(name.endswith(" sleep") for name in leftovers(daemon.state).processes))
        found = leftovers(daemon.state)
        running.join()
    assert {name.split()[1] for name in found.processes} >= {
        "immured-launch",
        "immured-parker",
        "immured-warden",
        "sleep",
    }
    assert any("/tenants/" in path for path in found.cgroups)
