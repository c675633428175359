"""What is discarded is as on the host again, inside too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from immured.client.errors import Refusal
from tests.changes.project import Captured, own
from tests.warden.places import mounted, tells_mounts_apart


def test_all(captured: Captured) -> None:
    captured.sh("echo 3 >> a.txt; rm -r dir; mkdir new; echo x > new/x; chmod 700 .")
    captured.sandbox.changes.discard()
    assert captured.kinds() == {}
    assert captured.sh("cat a.txt dir/b; ls") == b"one\ntwo\nb\na.txt\ndir\n"


def test_some(captured: Captured) -> None:
    captured.sh("echo 3 >> a.txt; rm -r dir; mkdir new; echo x > new/x; echo y > new/y")
    captured.sandbox.changes.discard(captured.inside("dir"), captured.inside("new/x"))
    assert captured.kinds() == {"a.txt": "modified", "new": "created", "new/y": "created"}
    assert captured.sh("cat a.txt dir/b; ls new") == b"one\ntwo\n3\nb\ny\n"


def test_the_sandbox_writes_on_afterwards(captured: Captured) -> None:
    captured.sh("echo 3 >> a.txt")
    captured.sandbox.changes.discard()
    captured.sh("echo 4 >> a.txt; mkdir n; mv dir/b n/b")
    assert captured.kinds() == {"a.txt": "modified", "n": "created", "n/b": "renamed"}
    captured.accept()
    captured.sandbox.changes.discard()
    assert captured.sh("cat a.txt n/b") == b"one\ntwo\n4\nb\n"
    assert captured.kinds() == {}


def test_room_is_free_again(captured: Captured) -> None:
    captured.sh("head -c 20M /dev/zero > big")
    captured.sandbox.changes.discard()
    captured.sh("head -c 20M /dev/zero > big")


def test_not_while_something_runs(captured: Captured) -> None:
    captured.sh("echo 3 >> a.txt")
    running = captured.sandbox.start(["/bin/sleep", "600"], cwd=str(captured.path))
    with pytest.raises(Refusal) as caught:
        captured.sandbox.changes.discard()
    assert caught.value.code == "in_use"
    assert captured.kinds() == {"a.txt": "modified"}
    running.signal(9)
    running.wait()
    captured.sandbox.changes.discard()


def test_what_is_no_change(captured: Captured) -> None:
    captured.sh("echo 3 >> a.txt")
    with pytest.raises(Refusal) as caught:
        captured.sandbox.changes.discard(captured.inside("dir/b"))
    assert caught.value.code == "no_such_change"
    assert captured.kinds() == {"a.txt": "modified"}


def test_names_that_stand_in_the_way(captured: Captured) -> None:
    """What a payload calls its files does not keep them from going."""
    captured.python("import os\nfor r in range(2):\n  for n in range(40): os.makedirs(f'.immured-{r:x}-{n:x}/a/b/c')\n")
    captured.sandbox.changes.discard()
    assert captured.kinds() == {}


def test_beside_another_tree_in_a_writable_directory(capture: Callable[..., Captured], ground: Path) -> None:
    """What is above both is mounted over itself, so that nobody moves it: with no second layer in it."""
    with TemporaryDirectory(dir=ground) as tree:
        own(Path(tree))
        captured = capture(read=[tree])
        captured.sh("echo 3 >> a.txt")
        captured.sandbox.changes.discard()
        layers = f"grep -c ' {captured.path} .* - overlay' /proc/self/mountinfo"  # this host's own may be on one too
        assert captured.sh(f"cat a.txt; {layers}") == b"one\ntwo\n1\n"


@tells_mounts_apart
def test_after_a_mount_went_that_another_tree_brought_along(capture: Callable[..., Captured], ground: Path) -> None:
    """Whether the layer is back is known by how many mounts there are."""
    with TemporaryDirectory(dir=ground) as tree:
        own(Path(tree))
        other = Path(tree) / "other"
        other.mkdir()
        with mounted("none", other, "tmpfs"):
            captured = capture(read=[tree])
            captured.sh("echo 3 >> a.txt")
            assert captured.sh(f"grep -c {other} /proc/self/mountinfo") == b"1\n"
        other.rmdir()
        assert captured.sh(f"grep -c {other} /proc/self/mountinfo || true") == b"0\n"
        captured.sandbox.changes.discard()
        assert captured.sh("cat a.txt") == b"one\ntwo\n"
