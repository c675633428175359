"""The layer is a stranger's, and the host may change under our hands: nothing is followed, nothing leads outside."""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from immured import Client
from immured.client.changes import Changes
from immured.client.errors import Refusal
from immured.client.sandbox import Sandbox
from tests.changes.project import CALLER, OTHER, Captured, own, tree


@pytest.mark.parametrize(
    ("make", "trouble"),
    [
        ("mkfifo x", "special"),
        ("python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('x')\"", "special"),
        ("python3 -c \"open('x', 'wb').truncate(1 << 40)\"", "huge"),
        ("mkdir .immured-0123456789abcdef; mv .immured-0123456789abcdef x; mkdir .immured-x", "protected"),
    ],
)
def test_what_no_change_set_carries(captured: Captured, make: str, trouble: str) -> None:
    captured.sh(make + "; echo ok > fine")
    assert trouble in {one.trouble for one in captured.rows().values()}
    assert captured.refused().code in {"unacceptable", "protected"}
    assert captured.refused(force=True).code in {"unacceptable", "protected"}
    assert captured.accept("fine") == ["fine"]


def test_a_setuid_bit_of_the_hosts_does_not_come_back_with_new_content(captured: Captured) -> None:
    os.chmod(captured.path / "a.txt", 0o4755)
    captured.sh("echo evil > a.txt || true; cp a.txt b.txt; rm a.txt; mv b.txt a.txt")
    captured.accept(force=True)
    assert (captured.path / "a.txt").stat().st_mode & 0o7000 == 0


def test_links_are_carried_and_never_followed(captured: Captured, ground: Path) -> None:
    outside = ground / "outside"
    outside.mkdir(exist_ok=True)
    own(outside)
    captured.sh(
        f"ln -s {outside} out; ln -s ../../../../../../etc/passwd p; rm -r dir; ln -s {outside} dir; ln -s loop loop"
    )
    captured.accept()
    assert os.readlink(captured.path / "dir") == str(outside)
    assert os.listdir(outside) == []
    captured.sh("rm dir out; mkdir dir out; echo x > dir/x; echo y > out/y")
    captured.accept()
    assert os.listdir(outside) == []
    assert (captured.path / "dir" / "x").read_text() == "x\n"


def test_a_link_on_the_host_is_not_followed(captured: Captured, ground: Path) -> None:
    outside = ground / "outside-2"
    outside.mkdir(exist_ok=True)
    (outside / "b").write_text("not yours\n")
    own(outside)
    captured.sh("echo mine >> dir/b; echo new > dir/new; rm -r dir/sub")
    (captured.path / "dir").rename(captured.path / "away")
    os.symlink(outside, captured.path / "dir")
    os.lchown(captured.path / "dir", CALLER, CALLER)
    before = tree(outside)
    for force in (False, True):
        with contextlib.suppress(Refusal):
            captured.accept(force=force)
        assert tree(outside) == before


def test_a_link_that_comes_and_goes_while_changes_are_applied(captured: Captured, ground: Path) -> None:
    """The race on the host's side, by its owner or another sandbox: whatever comes of it, nothing outside changes."""
    outside = ground / "outside-3"
    (outside / "sub").mkdir(parents=True, exist_ok=True)
    (outside / "b").write_text("not yours\n")
    own(outside)
    before = tree(outside)
    link = captured.path / "link"
    os.symlink(outside, link)
    os.lchown(link, CALLER, CALLER)
    libc = ctypes.CDLL(None, use_errno=True)
    refused: set[str] = set()

    def swap(over: threading.Event) -> None:
        one, two = os.fsencode(captured.path / "dir"), os.fsencode(link)
        while not over.is_set():
            libc.renameat2(-100, one, -100, two, 2)
        if not link.is_symlink():
            libc.renameat2(-100, one, -100, two, 2)

    for turn in range(15):
        captured.sh(f"echo {turn} > dir/b; echo {turn} > dir/n{turn}; mkdir dir/d{turn}; echo x > dir/d{turn}/x")
        over = threading.Event()
        racer = threading.Thread(target=swap, args=(over,))
        racer.start()
        try:
            captured.accept(force=True)
        except Refusal as refusal:
            refused.add(refusal.code)
        finally:
            over.set()
            racer.join()
        assert tree(outside) == before
    assert refused <= {"conflict", "not_applied", "changed_since", "unacceptable", "half_applied", "path_denied"}


def test_another_users_files_are_not_replaced(captured: Captured) -> None:
    captured.sh("rm dir/b; echo mine > dir/b; echo x > a.txt")
    os.chown(captured.path / "dir" / "b", 0, 0)
    row = captured.rows()["dir/b"]
    assert row.trouble == "foreign"
    assert captured.refused(force=True).code == "unacceptable"
    assert captured.accept(skip=("dir",)) == ["a.txt"]


def test_another_caller_accepts_nothing(captured: Captured, other: Client) -> None:
    """An admin may look at the sandbox; on the host he is who he is."""
    captured.sh("echo mine >> a.txt")
    theirs: Sandbox = other.at(captured.sandbox.id)
    before = tree(captured.path)
    with pytest.raises(Refusal) as caught:
        Changes(theirs).accept()
    assert caught.value.code == "path_denied"
    assert tree(captured.path) == before
    os.chmod(captured.path / "a.txt", 0o600)
    secret = [one for one in Changes(theirs).list() if one.kind == "modified"]
    assert [one.trouble for one in secret] != [None]
    with pytest.raises(Refusal) as caught:
        Changes(theirs).diff(captured.inside("a.txt"))
    assert caught.value.code == "path_denied"


def test_root_owned_directories_take_nothing(captured: Captured) -> None:
    captured.sh("echo mine >> a.txt")
    os.chown(captured.path, 0, 0)
    assert captured.refused(force=True).code == "root_owned"


def test_a_directory_given_away_takes_nothing(captured: Captured) -> None:
    captured.sh("echo mine >> a.txt")
    os.chown(captured.path, OTHER, OTHER)
    assert captured.refused(force=True).code == "path_denied"


@pytest.mark.parametrize("name", [".git/hooks/pre-commit", ".GIT/config", ".bashrc", "keep/it/x"])
def test_protected_names(capture: Callable[..., Captured], project: Path, name: str) -> None:
    (project / ".git").mkdir()
    (project / "keep").mkdir()
    own(project)
    captured = capture(protect=["@vcs", "@shell", f"{project}/keep/it"])
    captured.sh(f"mkdir -p $(dirname {name}); echo evil > {name}; echo fine > fine")
    assert captured.refused().code == "protected"
    assert captured.refused(force=True).code == "protected"
    captured.accept("fine")


def test_a_protected_name_does_not_go_with_the_directory_above_it(
    capture: Callable[..., Captured], project: Path
) -> None:
    (project / "keep").mkdir()
    (project / "keep" / "it").write_text("x")
    own(project)
    captured = capture(protect=[f"{project}/keep/it"])
    captured.sh("rm -r keep; echo evil > keep")
    assert captured.refused(force=True).code == "protected"
    captured.sh("rm keep")
    assert captured.refused(force=True).code == "protected"


def test_hard_links_and_closed_directories(captured: Captured) -> None:
    captured.sh("echo x > one; ln one two; mkdir shut; echo y > shut/y; chmod 0 shut")
    captured.accept()
    assert (captured.path / "two").read_text() == "x\n"
    assert stat.S_IMODE((captured.path / "shut").stat().st_mode) == 0
    captured.sh("chmod 700 shut")
    assert captured.rows()["shut/y"].trouble == "hidden"  # behind the host's closed directory
    captured.accept(skip=("shut/y",))
    captured.sh("rm -rf shut")
    captured.accept()
    assert not (captured.path / "shut").exists()


def test_a_tree_that_is_too_deep_is_told_and_can_be_thrown_away(captured: Captured) -> None:
    captured.python("import os\nfor i in range(700): os.mkdir('d' * 50); os.chdir('d' * 50)")
    assert captured.refused().code == "too_many_changes"
    captured.sandbox.changes.discard()
    assert captured.kinds() == {}


def test_more_changes_than_a_set_holds(captured: Captured) -> None:
    captured.python("import os\nfor i in range(6000): os.symlink('x', f'l{i}')")
    assert len(captured.rows()) == 6000
    captured.sandbox.changes.discard()
    assert captured.kinds() == {}


def test_a_layer_is_of_its_size(captured: Captured) -> None:
    with_all = captured.sandbox.exec(["/bin/sh", "-c", "head -c 200M /dev/zero > full"], cwd=str(captured.path))
    assert b"No space" in with_all.stderr
    captured.sh("rm full")


def test_a_directory_with_a_mount_in_it_is_not_captured(caller: Client, project: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "none", str(project / "dir")], check=True)
    try:
        with pytest.raises(Refusal) as caught:
            caller.sandbox(manifest={"schema": 1, "name": "x", "filesystem": {"capture": [str(project)]}})
        assert caught.value.code in {"layer_failed", "setup_failed"}
        assert "mount" in str(caught.value)
    finally:
        subprocess.run(["umount", str(project / "dir")], check=True)
