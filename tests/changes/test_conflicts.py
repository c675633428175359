"""What changed on the host since the sandbox was made is found, and not written over unasked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest

from tests.changes.project import CALLER, Captured, later, own


def _edit(captured: Captured) -> None:
    (captured.path / "a.txt").write_text("the owner's\n")


def _touch_mode(captured: Captured) -> None:
    (captured.path / "a.txt").chmod(0o600)


def _replace(captured: Captured) -> None:
    """By a file that is older than the sandbox: only the rename tells."""
    (captured.path / "old").rename(captured.path / "a.txt")


def _link(captured: Captured) -> None:
    (captured.path / "a.txt").unlink()
    os.symlink("/etc/passwd", captured.path / "a.txt")
    os.lchown(captured.path / "a.txt", CALLER, CALLER)


def _remove(captured: Captured) -> None:
    (captured.path / "a.txt").unlink()


def _directory(captured: Captured) -> None:
    (captured.path / "a.txt").unlink()
    (captured.path / "a.txt").mkdir()
    own(captured.path / "a.txt")


@pytest.mark.parametrize("change", [_edit, _touch_mode, _replace, _link, _remove, _directory])
def test_a_file_that_both_changed(
    capture: Callable[..., Captured], project: object, change: Callable[[Captured], None]
) -> None:
    del project
    captured = capture()
    (captured.path / "old").write_text("older\n")
    own(captured.path)
    later()
    captured = capture()
    captured.sh("echo mine >> a.txt")
    later()
    change(captured)
    row = captured.rows()["a.txt"]
    assert row.conflict, row
    assert captured.refused().code == "conflict"
    captured.accept("a.txt", force=True)
    assert (captured.path / "a.txt").read_text() == "one\ntwo\nmine\n"
    assert not (captured.path / "a.txt").is_symlink()


def test_what_the_host_changed_and_the_sandbox_did_not_is_no_conflict(captured: Captured) -> None:
    later()
    (captured.path / "dir" / "b").write_text("the owner's\n")
    captured.sh("echo mine >> a.txt")
    captured.accept()
    assert (captured.path / "dir" / "b").read_text() == "the owner's\n"


def test_a_name_that_both_made(captured: Captured) -> None:
    captured.sh("echo mine > new")
    later()
    (captured.path / "new").write_text("the owner's\n")
    own(captured.path / "new")
    assert captured.refused().code == "conflict"


def test_a_directory_that_goes_with_something_new_in_it(captured: Captured) -> None:
    captured.sh("rm -r dir")
    later()
    (captured.path / "dir" / "sub" / "precious").write_text("x")
    own(captured.path)
    assert captured.refused().code == "conflict"
    assert (captured.path / "dir" / "sub" / "precious").exists()


def test_a_directory_that_was_exchanged_on_the_host(captured: Captured) -> None:
    """The files in it are older than the sandbox; they are others all the same."""
    (captured.path / "spare").mkdir()
    (captured.path / "spare" / "b").write_text("another b\n")
    own(captured.path)
    captured.sh("echo mine >> dir/b")
    later()
    (captured.path / "dir").rename(captured.path / "away")
    (captured.path / "spare").rename(captured.path / "dir")
    assert captured.refused().code == "conflict"


def test_the_captured_directory_itself_was_exchanged(captured: Captured) -> None:
    captured.sh("echo mine >> a.txt")
    captured.path.rename(captured.path.with_suffix(".away"))
    captured.path.mkdir()
    own(captured.path)
    try:
        assert captured.refused().code == "directory_moved"
    finally:
        captured.path.rmdir()
        captured.path.with_suffix(".away").rename(captured.path)
    captured.accept()


def test_two_sandboxes_of_one_directory(capture: Callable[..., Captured]) -> None:
    first, second = capture(), capture()
    first.sh("echo first >> a.txt; echo 1 > one")
    second.sh("echo second >> a.txt; echo 2 > two")
    later()
    first.accept()
    assert second.refused().code == "conflict"
    assert second.accept(skip=("a.txt",)) == ["two"]
    assert (second.path / "a.txt").read_text() == "one\ntwo\nfirst\n"


def test_after_the_owner_edited_what_was_accepted(captured: Captured) -> None:
    captured.sh("echo mine >> a.txt")
    captured.accept()
    later()
    (captured.path / "a.txt").write_text("the owner's\n")
    captured.sh("echo more >> a.txt")
    assert captured.refused().code == "conflict"


def test_a_directory_that_is_gone(captured: Captured) -> None:
    captured.sh("echo mine > dir/new")
    shutil.rmtree(captured.path / "dir")
    assert captured.refused().code == "conflict"
