"""Names that are held in a workspace while a run lasts."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

from immured.cli.placeholders import MODE, held
from tests.patience import PATIENCE_S


def test_what_is_missing_is_held_and_gone_afterwards(tmp_path: Path) -> None:
    place = tmp_path / ".git"
    with held([str(place)]):
        assert stat.S_IMODE(place.stat().st_mode) == MODE
        assert os.listdir(place) == []
    assert os.listdir(tmp_path) == []


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    with held([str(tmp_path / name) for name in ("empty", "file", "link", "no/such/place")]):
        pass
    assert sorted(os.listdir(tmp_path)) == ["empty", "file", "link"]


def test_several_runs_share_one_and_the_last_removes_it(tmp_path: Path) -> None:
    place = tmp_path / ".git"
    with held([str(place)]):
        with held([str(place)]):
            pass
        assert place.is_dir()
    assert not place.exists()


def test_what_a_killed_run_left_is_taken_over_and_removed(tmp_path: Path) -> None:
    place = tmp_path / ".git"
    program = (
        "import os, sys\nfrom immured.cli.placeholders import held\nwith held(sys.argv[1:]): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program, place], check=False, timeout=PATIENCE_S).returncode == -9
    assert place.is_dir()
    with held([str(place)]):
        pass
    assert not place.exists()


def test_many_at_once_never_miss_it(tmp_path: Path) -> None:
    """Whoever is within finds it there, however the others come and go."""
    place, missed = tmp_path / ".git", []

    def hold() -> None:
        for _ in range(200):
            with held([str(place)]):
                if not place.is_dir():
                    missed.append(1)

    threads = [threading.Thread(target=hold) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert missed == []
    assert not place.exists()


def test_a_lock_on_a_directory_of_somebodys_own_is_not_waited_for(tmp_path: Path) -> None:
    """Whoever may read a directory may lock it for as long as he likes."""
    place = tmp_path / ".git"
    place.mkdir(0o755)
    locked = os.open(place, os.O_RDONLY)
    fcntl.flock(locked, fcntl.LOCK_EX)
    reached = threading.Event()

    def hold() -> None:
        with held([str(place)]):
            reached.set()

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    try:
        assert reached.wait(PATIENCE_S)
    finally:
        os.close(locked)
        thread.join(PATIENCE_S)
    assert place.is_dir()


def test_a_directory_that_was_put_in_its_place_is_not_removed(tmp_path: Path) -> None:
    work, other = tmp_path / "work", tmp_path / "other"
    work.mkdir()
    (other / ".git").mkdir(parents=True)
    with held([str(work / ".git")]):
        work.rename(tmp_path / "moved")
        work.symlink_to(other)
    assert (other / ".git").is_dir()
    assert os.listdir(tmp_path / "moved") == []
    work.unlink()
    with held([str(tmp_path / "moved" / ".git")]):
        (tmp_path / "moved" / ".git").rename(tmp_path / "kept")
        (tmp_path / "moved" / ".git").mkdir()
    assert os.listdir(tmp_path / "moved") == [".git"]


def test_nothing_is_made_where_a_link_leads(tmp_path: Path) -> None:
    """Root, in somebody's directory, would make it for him wherever he likes."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "work").symlink_to("elsewhere")
    with held([str(tmp_path / "work" / ".git")]):
        assert os.listdir(tmp_path / "elsewhere") == []


def test_another_users_is_none_of_ours(tmp_path: Path) -> None:
    place = tmp_path / ".git"
    place.mkdir()
    place.chmod(MODE)
    if os.geteuid() == 0:
        os.chown(place, 4242, 4242)
    with held([str(place)]):
        pass
    assert place.is_dir() == (os.geteuid() == 0)
