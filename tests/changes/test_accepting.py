"""Accepted changes are on the host, as their caller's: all of them, or none."""

from __future__ import annotations

import ast
import hashlib
import os
import stat
from pathlib import Path

import pytest

from immured import Client
from immured.client.errors import Refusal
from immured.client.throwaway import ThrowawayDaemon
from tests.changes.project import CALLER, OTHER, Captured, later
from tests.entries import entries_in


def seen_inside(captured: Captured) -> dict[str, tuple[int, object]]:
    script = (
        "import os, stat, sys\n"
        "for d, n, f in os.walk('.'):\n"
        "  for x in n + f:\n"
        "    p = os.path.join(d, x); m = os.lstat(p).st_mode\n"
        "    c = os.readlink(p) if stat.S_ISLNK(m) else open(p).read() if stat.S_ISREG(m) else None\n"
        "    print(repr((os.path.relpath(p), m, c)))\n"
    )
    return {
        path: (mode, content)
        for path, mode, content in map(ast.literal_eval, map(bytes.decode, captured.python(script).splitlines()))
    }


def seen_outside(captured: Captured) -> dict[str, tuple[int, object]]:
    found: dict[str, tuple[int, object]] = {}
    for directory, names, files in os.walk(captured.path):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            mode = os.lstat(path).st_mode
            content: object = None
            if stat.S_ISLNK(mode):
                content = os.readlink(path)
            elif stat.S_ISREG(mode):
                content = Path(path).read_text()
            found[os.path.relpath(path, captured.path)] = (mode, content)
    return found


WORK = """
echo three >> a.txt; chmod 750 a.txt
mkdir -p new/deep/er; echo x > new/deep/er/x; ln -s ../a.txt new/link
mv dir/b dir/b2; rm -r dir/sub; echo file > dir/sub
mkdir closed; echo y > closed/y; chmod 500 closed
chmod 711 dir
"""


def test_the_host_is_then_as_the_sandbox_sees_it(captured: Captured) -> None:
    captured.sh(WORK)
    captured.accept()
    assert seen_outside(captured) == seen_inside(captured)
    assert captured.kinds() == {}


def test_what_is_accepted_is_the_callers(captured: Captured) -> None:
    captured.sh(WORK)
    captured.accept()
    for directory, names, files in os.walk(captured.path):
        for name in (*names, *files):
            st = os.lstat(os.path.join(directory, name))
            assert (st.st_uid, st.st_gid) == (CALLER, CALLER)


def test_some(captured: Captured) -> None:
    captured.sh("echo 3 >> a.txt; rm dir/b; mkdir new; echo x > new/x; echo y > new/y")
    assert captured.accept("a.txt", "new/x") == ["a.txt", "new", "new/x"]
    assert captured.kinds() == {"dir/b": "deleted", "new/y": "created"}
    assert sorted(os.listdir(captured.path / "new")) == ["x"]


def test_all_but_some(captured: Captured) -> None:
    captured.sh("echo 3 >> a.txt; rm dir/b; mkdir new; echo x > new/x")
    assert captured.accept(skip=("dir", "new")) == ["a.txt"]
    assert captured.kinds() == {"dir/b": "deleted", "new": "created", "new/x": "created"}


def test_a_file_brings_the_directory_that_it_needs(captured: Captured) -> None:
    captured.sh("rm a.txt; mkdir a.txt; echo x > a.txt/x")
    captured.sh("mkdir new; echo y > new/y")
    assert captured.accept("a.txt/x") == ["a.txt", "a.txt/x"]
    assert captured.kinds() == {"new": "created", "new/y": "created"}


def test_a_path_without_a_change_is_refused(captured: Captured) -> None:
    captured.sh("echo 3 >> a.txt")
    assert captured.refused("dir").code == "no_such_change"


def test_only_what_was_listed(captured: Captured) -> None:
    captured.sh("echo 3 >> a.txt")
    seen = captured.sandbox.changes.list()
    captured.sh("echo 4 >> a.txt")
    assert captured.refused(as_listed=seen).code == "changed_since"
    captured.accept(as_listed=captured.sandbox.changes.list())
    assert (captured.path / "a.txt").read_text() == "one\ntwo\n3\n4\n"


def test_one_change_that_cannot_be_applied_takes_all_back(captured: Captured) -> None:
    """Found only by trying: a directory on the way has become another's."""
    captured.sh("echo 3 >> a.txt; chmod 700 dir/sub; rm dir/b; echo n > dir/sub/n; mkdir zz; echo z > zz/z")
    os.chown(captured.path / "dir", OTHER, OTHER)
    assert captured.refused(force=True).code == "not_applied"
    assert not [name for name in os.listdir(captured.path) if name.startswith(".immured")]
    os.chown(captured.path / "dir", CALLER, CALLER)
    captured.accept(force=True)
    assert captured.kinds() == {}


def test_accepting_again_and_again(captured: Captured) -> None:
    """What came by our own hand is no conflict later."""
    for turn in range(4):
        captured.sh(
            f"echo {turn} >> a.txt; mkdir -p d{turn}; echo {turn} > d{turn}/f; echo {turn} > dir/n; mv dir/n dir/m"
        )
        captured.accept()
        assert captured.kinds() == {}
        later()
    captured.sh("rm -r d0 d1/f dir/m; mv d2/f d2/g; echo new > d3/f")
    assert captured.kinds() == {
        "d0": "deleted", "d1/f": "deleted", "d2/f": "deleted", "d2/g": "created", "d3/f": "modified",
        "dir/m": "deleted",
    }  # fmt: skip
    captured.accept()
    assert not (captured.path / "d0").exists()
    assert sorted(os.listdir(captured.path / "d1")) == []
    assert os.listdir(captured.path / "d2") == ["g"]
    assert captured.kinds() == {}


def test_attributes_and_group_of_a_replaced_file_stay(captured: Captured) -> None:
    os.setxattr(captured.path / "a.txt", "user.note", b"kept")
    os.chmod(captured.path / "dir", 0o2775)
    captured.sh("echo 3 >> a.txt; echo n > dir/n")
    captured.accept(force=True)
    assert os.getxattr(captured.path / "a.txt", "user.note") == b"kept"
    assert (captured.path / "dir").stat().st_mode & 0o7777 == 0o2775


def test_holes_stay_holes(captured: Captured) -> None:
    captured.python("f = open('sparse', 'wb'); f.seek(8 << 20); f.write(b'end'); f.close()")
    captured.accept()
    st = (captured.path / "sparse").stat()
    assert st.st_size == (8 << 20) + 3
    assert st.st_blocks * 512 < 1 << 20
    with (captured.path / "sparse").open("rb") as file:
        file.seek(-3, 2)
        assert file.read() == b"end"


def test_the_ledger_has_what_was_accepted(captured: Captured, daemon: ThrowawayDaemon) -> None:
    captured.sh("echo 3 > a.txt")
    captured.accept()
    entries = entries_in(daemon.state)
    accepted = [one for one in entries if one["type"] == "command.accepted" and one["data"]["cmd"] == "changes.accept"]
    done = [one for one in entries if one["type"] == "command.done" and one["data"]["cmd"] == "changes.accept"]
    assert accepted[-1]["data"]["sandbox"] == captured.sandbox.id
    assert done[-1]["data"]["intent"] == accepted[-1]["seq"]
    assert done[-1]["data"]["named"] == [
        {"kind": "modified", "path": "a.txt", "sha256": hashlib.sha256(b"3\n").hexdigest()}
    ]


def test_a_run_cannot_capture(caller: Client, captured: Captured) -> None:
    manifest = {"schema": 1, "name": "x", "filesystem": {"capture": [str(captured.path)]}}
    with pytest.raises(Refusal, match="captured") as caught:
        caller.run(["/bin/true"], manifest=manifest)
    assert caught.value.code == "bad_argument"
