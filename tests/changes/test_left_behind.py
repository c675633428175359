"""An acceptance whose sandbox is gone in the middle, as after a crash: who captures the directory next sees to it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from immured.client.throwaway import ThrowawayDaemon
from tests.changes.project import CALLER, Captured, accepting, tree
from tests.held import RENAMES

_FILES = 40
# In the order in which they come about: what goes, then what comes, by name.
_MOMENTS: dict[str, Callable[[Path], bool]] = {
    "the first rename": lambda path: not (path / "dir" / "b").exists(),
    "half of them": lambda path: (path / "f20").exists(),
    "the last rename": lambda path: (path / "f9").exists(),
}


def _records(daemon: ThrowawayDaemon, directory: Path) -> list[Path]:
    return [one for one in (daemon.state / "accepting").iterdir() if str(directory) in one.read_text()]


def _staged(path: Path) -> list[str]:
    return [one for one in os.listdir(path) if one.startswith(".immured-")]


@pytest.fixture(params=_MOMENTS)
def left(capture: Callable[..., Captured], project: Path, request: pytest.FixtureRequest) -> dict[str, object]:
    """How the project was before it was left half accepted: by a clerk that was killed after that, and its sandbox."""
    before, captured, after = tree(project), capture(), _MOMENTS[request.param]
    captured.sh(f"for i in $(seq {_FILES}); do echo new > f$i; done; rm dir/b; echo new > a.txt")
    with accepting(captured) as clerk:
        assert clerk.goes_on_until(lambda call: call in RENAMES and after(project))
        clerk.kill()
    captured.sandbox.kill()
    assert (project / _staged(project)[0] / "journal").exists()
    return before


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
