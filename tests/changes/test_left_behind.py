"""An acceptance whose sandbox is gone in the middle, as after a crash: who captures the directory next sees to it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from immured.client.errors import Refusal
from immured.client.throwaway import ThrowawayDaemon
from tests.changes.project import CALLER, Captured, tree
from tests.changes.test_cut_off import clerks

_FILES = 1500


def _records(daemon: ThrowawayDaemon, directory: Path) -> list[Path]:
    return [one for one in (daemon.state / "accepting").iterdir() if str(directory) in one.read_text()]


def _staged(path: Path) -> list[str]:
    return [one for one in os.listdir(path) if one.startswith(".immured-")]


def _cut_off(captured: Captured, daemon: ThrowawayDaemon) -> None:
    """Ends sandbox and clerk in the middle of the renames."""
    captured.sh(f"for i in $(seq {_FILES}); do echo new > f$i; done; rm dir/b; echo new > a.txt")
    over = threading.Event()

    def kill() -> None:
        found: list[int] = []
        while not over.is_set() and not (found and _staged(captured.path)):
            found = clerks(daemon)
        while not over.is_set() and not (captured.path / "f9").exists():
            pass
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with contextlib.suppress(Refusal):
        captured.accept()
    over.set()
    killer.join()
    captured.sandbox.kill()


@pytest.fixture
def left(capture: Callable[..., Captured], daemon: ThrowawayDaemon, project: Path) -> dict[str, object]:
    """How the project was before it was left half accepted."""
    for _ in range(10):
        for name in os.listdir(project):
            if name.startswith("f"):
                (project / name).unlink()
        before = tree(project)
        _cut_off(capture(), daemon)
        if _staged(project) and (project / _staged(project)[0] / "journal").exists():
            return before
        captured = capture()
        captured.rows()
        captured.sandbox.kill()
        (project / "a.txt").write_text("one\ntwo\n")
        (project / "dir" / "b").write_text("b\n")
    pytest.fail("no clerk was ever killed in the middle")


def test_the_next_sandbox_undoes_it(
    left: dict[str, object], capture: Callable[..., Captured], daemon: ThrowawayDaemon, project: Path
) -> None:
    assert _records(daemon, project)
    assert tree(project) != left
    captured = capture()
    assert captured.sandbox.changes.list().changes == ()
    assert tree(project) == left
    assert _records(daemon, project) == []


def test_a_journal_that_somebody_else_wrote_is_not_followed(
    left: dict[str, object], capture: Callable[..., Captured], daemon: ThrowawayDaemon, project: Path
) -> None:
    journal = project / _staged(project)[0] / "journal"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-1]))
    half = tree(project)
    captured = capture()
    captured.sh("echo later > later")
    assert captured.refused(force=True).code == "half_applied"
    assert captured.rows()["later"].kind == "created"
    assert tree(project) == half
    journal.write_text("".join(lines))
    captured.accept(force=True)
    assert (project / "later").read_text() == "later\n"
    assert (project / "a.txt").read_text() == "one\ntwo\n"
    assert _records(daemon, project) == []


def test_a_staging_directory_that_nobody_noted_is_left_alone(captured: Captured, project: Path) -> None:
    """Another sandbox that may write to the directory may make one."""
    forged = project / ".immured-0123456789abcdef"
    forged.mkdir()
    (forged / "o0").write_text("theirs\n")
    (forged / "journal").write_text(f"immured changes 1\nT 0 {(forged / 'o0').stat().st_ino} {b'planted'.hex()}\n")
    for one in (forged, *forged.iterdir()):
        os.chown(one, CALLER, CALLER)
    captured.sh("echo x > x")
    captured.accept(force=True)
    assert not (project / "planted").exists()
    assert forged.exists()


def test_nothing_is_noted_when_it_is_over(captured: Captured, daemon: ThrowawayDaemon, project: Path) -> None:
    captured.sh("echo x > x")
    captured.accept()
    captured.sh("echo y > x")
    (captured.path / "x").write_text("theirs\n")
    captured.refused()
    assert _records(daemon, project) == []
