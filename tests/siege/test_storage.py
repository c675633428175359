"""Places filled with what is hostile to whoever saves, shows, restores or removes them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from immured import Client
from immured.client.sandbox import Sandbox
from immured.errors import ImmuredError
from tests.siege.inside import program

pytestmark = pytest.mark.needs_root

FILLS = """
import ctypes, errno, json, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
os.chdir(sys.argv[1])

def tried(attempt, *words):
    try:
        attempt(*words)
    except OSError as refused:
        return errno.errorcode[refused.errno]
    return "ok"

def whiteout():
    open("seen", "w").close()
    if libc.renameat2(-100, b"seen", -100, b"moved", 4):
        raise OSError(ctypes.get_errno(), "")

def sparse():
    with open("sparse", "w") as file:
        file.truncate(1 << 40)

os.mkdir("merged")
os.mkdir("closed")
open("closed/file", "w").close()
os.chmod("closed", 0)
os.mkfifo("pipe")
socket.socket(socket.AF_UNIX).bind("socket")
os.symlink("/etc/shadow", "link")
os.symlink("../" * 40 + "etc", "up")
for name in (".wh.x", ".wh..wh..opq", b"\\xff\\n\\x1b[31m", "n" * 255):
    open(name, "w").close()
for number in range(100):
    os.link(".wh.x", f"name{number}")
sparse()
marks = ("user.overlay.opaque", "user.overlay.redirect", "user.overlay.metacopy", "user.overlay.whiteout")
for mark in marks:
    tried(os.setxattr, "merged", mark, b"y")
print(json.dumps({
    "device": tried(os.mknod, "device", 0o020666, os.makedev(1, 3)),
    "whiteout": tried(os.mknod, "hidden", 0o020000, 0),
    "whiteout by a rename": tried(whiteout),
    "set-id": tried(os.chmod, ".wh.x", 0o4755),
    "set-id directory": tried(os.chmod, "merged", 0o2777),
    "trusted": tried(os.setxattr, "merged", "trusted.overlay.opaque", b"y"),
    "redirect": tried(os.setxattr, "merged", "trusted.overlay.redirect", b"/etc"),
    "capabilities": tried(os.setxattr, ".wh.x", "security.capability", b"\\1\\0\\0\\2" + bytes(16)),
}))
"""
LOOKS = """
import json, os, stat, sys
found = {}
for place, directories, files in os.walk(os.fsencode(sys.argv[1])):
    for name in directories + files:
        facts = os.lstat(os.path.join(place, name))
        kind = "device" if stat.S_ISCHR(facts.st_mode) or stat.S_ISBLK(facts.st_mode) else "other"
        found[os.fsdecode(name).encode("unicode_escape").decode()] = [kind, facts.st_mode & 0o6000, facts.st_uid]
print(json.dumps(found))
"""


def fill(sandbox: Sandbox, place: str) -> None:
    refused = json.loads(sandbox.exec(program(FILLS, place)).stdout)
    assert "ok" not in refused.values(), refused


def look(sandbox: Sandbox, place: str) -> dict[str, list[object]]:
    found: dict[str, list[object]] = json.loads(sandbox.exec(program(LOOKS, place)).stdout)
    return found


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm"])
def test_a_snapshot_brings_back_names_and_no_rights(client: Client, place: str) -> None:
    name = f"filled-{place.strip('/').replace('/', '-')}"
    with client.sandbox() as sandbox:
        fill(sandbox, place)
        before = look(sandbox, place)
        sandbox.snapshot(name)
    try:
        with client.sandbox(snapshot=name) as fork:
            after = look(fork, place)
    finally:
        client.call("snapshot.remove", {"name": name})
    assert set(before) - set(after) <= {"socket"}
    assert {tuple(facts) for facts in after.values()} == {("other", 0, 1000)}


def test_a_tree_that_nobody_could_remove_is_not_saved(client: Client) -> None:
    """Each look of the daemon's at a name passes all directories above it."""
    nests = "import os\nos.chdir('/tmp')\nfor _ in range(4000):\n    os.mkdir('d')\n    os.chdir('d')"
    with client.sandbox() as sandbox:
        assert sandbox.exec(program(nests)).exit_code == 0
        with pytest.raises(ImmuredError) as refused:
            sandbox.snapshot("deep")
        sandbox.files.remove("/tmp/d", recursive=True)
    assert refused.value.code == "snapshot_failed"


def test_a_capture_takes_names_and_no_rights(client: Client, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "kept").write_text("kept")
    manifest = {
        "schema": 1,
        "name": "inline",
        "class": "default",
        "filesystem": {"capture": [{"path": str(tmp_path / "own"), "target": "/mnt/own"}]},
    }
    with client.sandbox(manifest=manifest) as sandbox:
        fill(sandbox, "/mnt/own")
        sandbox.exec(["/bin/rm", "/mnt/own/kept"])
        found = look(sandbox, "/mnt/own")
        kinds = {Path(os.fsdecode(change.path)).name: change.kind for change in sandbox.changes.list().changes}
    assert {tuple(facts[:2]) for facts in found.values()} == {("other", 0)}
    assert kinds["kept"] == "deleted"
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["kept"]
