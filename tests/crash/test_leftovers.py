"""The count of what is left finds it while it is there."""

from __future__ import annotations

import os
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
        theirs, ours = os.pipe()
        running = threading.Thread(target=client.run, args=(["/bin/cat"],), kwargs={"fds": {0: theirs}})
        running.start()
        try:
            wait_for(lambda: any(name.endswith(" cat") for name in leftovers(daemon.state).processes))
            found = leftovers(daemon.state)
        finally:
            os.close(ours)
            running.join()
            os.close(theirs)
    assert {name.split()[1] for name in found.processes} >= {
        "immured-launch",
        "immured-parker",
        "immured-warden",
        "cat",
    }
    assert any("/tenants/" in path for path in found.cgroups)
