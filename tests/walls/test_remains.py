"""A run that is over leaves nothing of its cgroup in the kernel, whatever it wrote."""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from immured import Client
from immured.client.throwaway import ThrowawayDaemon
from tests.patience import PATIENCE_S
from tests.walls.acting import as_user

pytestmark = pytest.mark.needs_cgroup2

CALLER = 1000
STAY = 32  # native/launcher/remains.c: so many stay, for the sake of what the next run of a project reads again
RUNS = STAY + 28


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of the caller's own, on a disk: a tmpfs has no page cache that outlives it."""
    base = Path(tempfile.mkdtemp(prefix="immured-remains-", dir="/var/lib"))
    os.chown(base, CALLER, CALLER)
    yield base
    shutil.rmtree(base)


def groups(tenants: Path) -> tuple[int, int]:
    """Sandboxes' cgroups that are there, and memory cgroups that are gone but not freed."""
    there = len(glob.glob(f"{tenants}/*/*/"))  # which come and go: that of `Path` would fail
    figures = dict(line.split() for line in (tenants / "cgroup.stat").read_text().splitlines())
    return there, int(figures["nr_dying_descendants"])


def settled(tenants: Path, right: Callable[[tuple[int, int]], bool]) -> tuple[int, int]:
    """The last that was seen: once it is right, or after the teardown of the last run must be over."""
    deadline = time.monotonic() + PATIENCE_S
    while not right(seen := groups(tenants)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return seen


def write_files(daemon: ThrowawayDaemon, place: Path, runs: int) -> None:
    """As many runs, each of which leaves a file of its own behind."""
    key = daemon.admin_key.read_bytes()
    manifest = {"schema": 1, "name": "writer", "filesystem": {"write": [str(place)]}}

    def work() -> None:
        with Client(socket=str(daemon.socket), key=key, daemon_key=str(daemon.daemon_key)) as client:
            for number in range(runs):
                argv = ["/bin/sh", "-c", f"echo something > {place}/file-{number}"]
                result = client.run(argv, manifest=manifest)
                assert result.exit_code == 0, result.failure

    as_user(CALLER, work)
    assert len(list(place.iterdir())) == runs


def test_runs_that_write_files_leave_no_dying_cgroups(place: Path) -> None:
    with ThrowawayDaemon() as daemon, daemon.client() as client:
        host = client.status()["host"]
        assert isinstance(host, dict)
        tenants = Path(host["cgroup"]) / "tenants"
        write_files(daemon, place, RUNS)
        there, dying = settled(tenants, lambda seen: seen[0] <= STAY and seen[1] <= 6)
    assert there <= STAY
    # A page of the filesystem's own can be dirty for a moment longer than what the run wrote.
    assert dying <= 6


def test_what_was_just_written_stays_in_the_page_cache(place: Path) -> None:
    with ThrowawayDaemon() as daemon, daemon.client() as client:
        host = client.status()["host"]
        assert isinstance(host, dict)
        tenants = Path(host["cgroup"]) / "tenants"
        write_files(daemon, place, 3)
        assert settled(tenants, lambda seen: seen == (3, 0)) == (3, 0)
