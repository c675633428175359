"""What was written is told name by name, and what was only touched is not."""

from __future__ import annotations

import hashlib
import os

from tests.changes.project import Captured, tree


def test_nothing_is_changed_at_first(captured: Captured) -> None:
    assert captured.kinds() == {}


def test_what_is_written_is_not_on_the_host(captured: Captured) -> None:
    before = tree(captured.path)
    captured.sh("echo three >> a.txt; rm -r dir; mkdir new; echo x > new/x")
    assert tree(captured.path) == before
    assert captured.sh("cat a.txt") == b"one\ntwo\nthree\n"


def test_each_kind_of_change(captured: Captured) -> None:
    captured.sh("echo three >> a.txt; rm dir/b; mv dir/sub/c moved; mkdir new; echo x > new/x; chmod 700 dir")
    assert captured.kinds() == {
        "a.txt": "modified", "dir": "mode", "dir/b": "deleted", "moved": "renamed", "new": "created",
        "new/x": "created",
    }  # fmt: skip


def test_both_sides_are_told_with_their_digests(captured: Captured) -> None:
    captured.sh("echo three > a.txt; chmod 755 a.txt")
    change = captured.rows()["a.txt"]
    assert change.before is not None
    assert change.after is not None
    assert change.before.sha256 == hashlib.sha256(b"one\ntwo\n").digest()
    assert change.after.sha256 == hashlib.sha256(b"three\n").digest()
    assert (change.before.mode, change.after.mode) == (0o644, 0o755)
    assert (change.before.size, change.after.size) == (8, 6)


def test_a_file_that_was_only_copied_up_is_no_change(captured: Captured) -> None:
    captured.sh("touch a.txt; echo x > dir/b; echo b > dir/b; chmod 600 dir/sub/c; chmod 644 dir/sub/c")
    assert captured.kinds() == {}


def test_a_directory_that_was_removed_is_one_change_that_says_how_many_names(captured: Captured) -> None:
    captured.sh("rm -r dir")
    rows = captured.rows()
    assert list(rows) == ["dir"]
    assert rows["dir"].before is not None
    assert rows["dir"].before.size == 3  # b, sub, sub/c


def test_a_directory_made_anew_is_compared_with_the_old_one(captured: Captured) -> None:
    captured.sh("rm -r dir; mkdir dir; echo b > dir/b; echo n > dir/n")
    assert captured.kinds() == {"dir/n": "created", "dir/sub": "deleted"}


def test_a_directory_that_was_moved_is_copied(captured: Captured) -> None:
    captured.sh("mv dir other")
    assert captured.kinds() == {
        "dir": "deleted", "other": "created", "other/b": "created", "other/sub": "created", "other/sub/c": "created",
    }  # fmt: skip


def test_a_file_that_became_something_else(captured: Captured) -> None:
    captured.sh(
        "rm a.txt; mkdir a.txt; echo x > a.txt/x; rm dir/b; ln -s ../a.txt dir/b; rm -r dir/sub; echo f > dir/sub"
    )
    rows = captured.rows()
    assert {name: one.kind for name, one in rows.items()} == {
        "a.txt": "modified", "a.txt/x": "created", "dir/b": "modified", "dir/sub": "modified",
    }  # fmt: skip
    assert [one.after.kind for one in rows.values() if one.after] == ["directory", "file", "link", "file"]
    assert rows["dir/b"].after is not None
    assert rows["dir/b"].after.link == "../a.txt"


def test_a_moved_file_that_was_changed_says_both(captured: Captured) -> None:
    captured.sh("mv a.txt b.txt; echo three >> b.txt")
    change = captured.rows()["b.txt"]
    assert change.kind == "renamed"
    assert change.former == captured.inside("a.txt")
    assert change.before is not None
    assert change.after is not None
    assert (change.before.size, change.after.size) == (8, 14)


def test_a_copy_beside_a_changed_original_is_no_conflict(captured: Captured) -> None:
    captured.sh("mv a.txt a.txt~; echo new > a.txt")
    rows = captured.rows()
    assert {name: (one.kind, one.trouble) for name, one in rows.items()} == {
        "a.txt": ("modified", None), "a.txt~": ("created", None),
    }  # fmt: skip


def test_a_file_saved_out_of_a_directory_that_goes_is_no_conflict(captured: Captured) -> None:
    captured.sh("mv dir/b kept; rm -r dir")
    assert {name: (one.kind, one.trouble) for name, one in captured.rows().items()} == {
        "dir": ("deleted", None), "kept": ("created", None),
    }  # fmt: skip


def test_names_of_any_bytes(captured: Captured) -> None:
    names = [b"new\nline", b"\xff\xfe", b"tab\tand\\backslash", b" ", b"\x1b[31m"]
    captured.python(f"for name in {names!r}: open(name, 'wb').write(name)")
    assert sorted(map(os.fsencode, captured.rows())) == sorted(names)
    captured.accept()
    assert all((captured.path / os.fsdecode(name)).read_bytes() == name for name in names)


def test_a_list_in_pages(captured: Captured) -> None:
    captured.python("for i in range(2500): open(f'f{i:04}', 'w').write(str(i))")
    rows = captured.rows()
    assert sorted(rows) == [f"f{i:04}" for i in range(2500)]


def test_a_diff_of_text(captured: Captured) -> None:
    captured.sh("sed -i s/two/zwei/ a.txt")
    shown = captured.sandbox.changes.diff(captured.inside("a.txt"))
    assert shown.before == b"one\ntwo\n"
    assert shown.after == b"one\nzwei\n"
    assert shown.text().split("\n")[-3:] == [" one", "-two", "+zwei"]


def test_a_diff_of_what_is_no_text(captured: Captured) -> None:
    captured.python("open('a.txt', 'wb').write(bytes(range(256)))")
    assert "not text" in captured.sandbox.changes.diff(captured.inside("a.txt")).text()
