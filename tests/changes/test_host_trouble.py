"""The host's file system says no, or the client goes, while changes are accepted: all of it is there, or nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from immured import Client
from immured.client.throwaway import ThrowawayDaemon
from tests.changes.project import CALLER, Captured, accepting, own, tree
from tests.held import RENAMES


@pytest.fixture
def small(ground: Path) -> Iterator[Path]:
    """The captured directory's file system: 4 MiB, and a few inodes."""
    path = ground / f"small-{os.urandom(4).hex()}"
    path.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size=4m,nr_inodes=40,mode=755,uid={CALLER},gid={CALLER}", "none", str(path)],
        check=True,
    )
    (path / "a.txt").write_text("one\n")
    own(path)
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)
    path.rmdir()


@pytest.fixture
def confined(caller: Client, small: Path) -> Iterator[Captured]:
    manifest = {
        "schema": 1,
        "name": "small",
        "filesystem": {"capture": [str(small)]},
        "limits": {"memory": "512M", "disk": "64M"},
    }
    sandbox = caller.sandbox(manifest=manifest)
    yield Captured(sandbox, small)
    sandbox.remove()


@pytest.mark.parametrize(
    "fill", ["head -c 8M /dev/urandom > big", "for i in $(seq 60); do echo x > f$i; done"], ids=["bytes", "inodes"]
)
def test_a_full_file_system(confined: Captured, fill: str) -> None:
    confined.sh(f"echo mine >> a.txt; rm -f gone; {fill}")
    refusal = confined.refused()
    assert (refusal.code, refusal.details["errno"]) == ("not_applied", "ENOSPC")
    assert confined.accept("a.txt") == ["a.txt"]


def test_a_file_system_that_became_read_only(confined: Captured, small: Path) -> None:
    confined.sh("echo mine >> a.txt; echo x > x")
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    refusal = confined.refused()
    assert (refusal.code, refusal.details["errno"]) == ("not_applied", "EROFS")
    assert confined.kinds() == {"a.txt": "modified", "x": "created"}
    subprocess.run(["mount", "-o", "remount,rw", str(small)], check=True)
    assert confined.accept() == ["a.txt", "x"]


@pytest.mark.parametrize("renamed", ["none", "some"])
def test_who_accepts_goes_in_the_middle(
    capture: Callable[..., Captured], daemon: ThrowawayDaemon, connect: Callable[[], Client], renamed: str
) -> None:
    captured = capture()
    captured.sh("for i in $(seq 40); do echo new > f$i; done; echo new > a.txt")
    before = tree(captured.path)
    with connect() as leaving, accepting(captured, leaving.at(captured.sandbox.id).changes.accept) as clerk:
        assert clerk.goes_on_until(
            lambda call: call in RENAMES and (renamed == "none" or (captured.path / "f20").exists())
        )
        leaving.close()
    left = captured.once_free()
    assert not [one for one in os.listdir(captured.path) if one.startswith(".immured-")]
    if left:
        assert tree(captured.path) == before
        captured.accept()
    assert (captured.path / "a.txt").read_text() == "new\n"
    assert captured.kinds() == {}
    assert str(captured.path) not in "".join(one.read_text() for one in (daemon.state / "accepting").iterdir())
