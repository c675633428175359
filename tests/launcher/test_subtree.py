"""The launcher's own cgroup subtree: swept at the start, whoever is in it; gone at the end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from immured.isolation.abi import Controller
from tests.launcher.harness import Broker, plan_for
from tests.patience import PATIENCE_S

Start = Callable[..., Broker]


def hierarchy() -> Path:
    """Where cgroup v2 is mounted here."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, kind = line.split(" - ")
        if kind.startswith("cgroup2 "):
            return Path(fields.split()[4])
    pytest.skip("no cgroup v2 is mounted; remedy: mount it, or boot with systemd.unified_cgroup_hierarchy=1")


@pytest.fixture
def subtree() -> Iterator[Path]:
    """A place for a subtree of the test's own."""
    place = hierarchy() / f"immured-test-{os.getpid()}"
    yield place
    if place.exists():
        (place / "cgroup.kill").write_text("1")
        for below in sorted(place.rglob("*"), reverse=True):
            if below.is_dir():
                below.rmdir()
        place.rmdir()


def leave(subtree: Path) -> subprocess.Popen[bytes]:
    """What a launcher that was killed could leave: cgroups, and somebody in one."""
    home = subtree / "tenants" / "t" / "s-1"
    home.mkdir(parents=True)
    (subtree / "tenants" / "t" / "s-2").mkdir()
    process = subprocess.Popen(["sleep", "1000"])
    (home / "cgroup.procs").write_text(str(process.pid))
    return process


def test_ready_names_the_subtree(start: Start, subtree: Path) -> None:
    assert start(cgroup=subtree).ready().cgroup == str(subtree)


def test_the_subtree_can_be_killed_whole(start: Start, subtree: Path) -> None:
    assert start(cgroup=subtree).ready().controllers & Controller.KILL


@pytest.mark.needs_cgroup2
def test_the_controllers_that_we_were_given_are_enabled(start: Start, subtree: Path) -> None:
    ready = start(cgroup=subtree).ready()
    given = set((subtree / "cgroup.controllers").read_text().split())
    enabled = {name for name in ("cpu", "memory", "pids", "io") if ready.controllers & Controller[name.upper()]}
    assert (
        enabled
        == given & {"cpu", "memory", "pids", "io"}
        == set((subtree / "tenants" / "cgroup.subtree_control").read_text().split())
    )


def test_what_a_killed_launcher_left_is_swept(start: Start, subtree: Path) -> None:
    with leave(subtree) as left:
        start(cgroup=subtree).ready()
        assert left.wait(PATIENCE_S) == -9
    assert [entry.name for entry in (subtree / "tenants").iterdir() if entry.is_dir()] == []


def test_nothing_of_the_subtree_is_left_at_the_end(start: Start, subtree: Path) -> None:
    broker = start(cgroup=subtree)
    broker.ready()
    assert broker.end() == 0
    assert not subtree.exists()


def test_a_lost_wardens_cgroup_is_ended(start: Start, subtree: Path) -> None:
    broker = start(cgroup=subtree)
    broker.ready()
    with leave(subtree) as left, broker.connection() as connection:
        broker.run(connection, plan_for("die-running", sandbox="s-1"))
        assert left.wait(PATIENCE_S) == -9


def test_other_cgroups_of_the_tenant_are_left_alone(start: Start, subtree: Path) -> None:
    broker = start(cgroup=subtree)
    broker.ready()
    with leave(subtree) as left, broker.connection() as connection:
        broker.run(connection, plan_for("die-running", sandbox="s-2"))
        alive = left.poll() is None
        left.kill()
    assert alive
    assert not (subtree / "tenants" / "t" / "s-2").exists()


@pytest.mark.parametrize("place", ["/tmp/immured-not-a-cgroup", "/nowhere/immured"])
def test_without_cgroup_v2_there_is_no_subtree(start: Start, place: str) -> None:
    ready = start(cgroup=place).ready()
    assert (ready.cgroup, ready.controllers) == ("", 0)
    assert not Path(place).exists()
