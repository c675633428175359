"""What is protected inside a writable directory stays as it is, whether it is there yet or not."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from immured.isolation import abi
from immured.isolation.abi import Absent, BindFlag, Cause, Op, Stage
from immured.isolation.messages import Exited
from immured.isolation.plan import Step
from tests.hostile.balking import FLUSH, BalkingMount
from tests.patience import PATIENCE_S
from tests.warden.cell import Cell, Run, Wish, bind, file
from tests.warden.places import ALICE, BOB, directory, give, shell, text
from tests.warden.sandbox import Sandbox

HELD_MODE = 0o101444
KERNEL = tuple(map(int, os.uname().release.split("-")[0].split(".")[:2]))


@pytest.fixture
def tree() -> Iterator[Path]:
    """A directory of the caller's, to be written."""
    above = Path(tempfile.mkdtemp(prefix="immured-protect-"))
    above.chmod(0o755)
    yield directory(above / "tree", ALICE.uid)
    shutil.rmtree(above)


def protect(path: str, absent: Absent = Absent.HELD) -> Step:
    return Step(Op.PROTECT, (absent,), (f"/t/{path}".encode(),))


def attempt(cell: Cell, tree: Path, command: str, *steps: Step) -> Run:
    """The command, in the tree at /t."""
    return cell.run(shell(command, bind(tree, "/t", BindFlag.WRITE), *steps, cwd="/t"), ALICE)


def repository(tree: Path) -> Path:
    hooks = directory(directory(tree / ".git", ALICE.uid) / "hooks", ALICE.uid)
    text(tree / ".git/config", ALICE.uid)
    return hooks


TRICKS = {
    "write": "echo x > .git/hooks/post-commit",
    "move the directory above away": "mv .git x && mkdir -p .git/hooks && echo x > .git/hooks/post-commit",
    "exchange the directory above": """mkdir -p new/hooks && python3 -c "
import ctypes
ctypes.CDLL(None).renameat2(-100, b'new', -100, b'.git', 2)" """,  # RENAME_EXCHANGE
    "remove": "rm -rf .git/hooks",
    "move it out": "mv .git/hooks elsewhere",
    "move another over it": "mkdir evil && mv -T evil .git/hooks",
    "put a link in its place": "rmdir .git/hooks; ln -s /tmp .git/hooks",
    "by the other name of a directory": "cd .git && echo x > ./hooks/../hooks/post-commit",
    "change its mode": "chmod 777 .git/hooks",
    "hard link into it": "echo x > y && ln y .git/hooks/post-commit",
}


@pytest.mark.parametrize("trick", TRICKS)
def test_no_trick_changes_what_is_protected(cell: Cell, tree: Path, trick: str) -> None:
    hooks = repository(tree)
    before = hooks.stat().st_ino
    attempt(cell, tree, TRICKS[trick], protect(".git/hooks"))
    assert (os.listdir(hooks), hooks.stat().st_ino, hooks.stat().st_mode) == ([], before, 0o40755)


@pytest.mark.parametrize("trick", TRICKS)
def test_without_protection_each_of_these_would(cell: Cell, tree: Path, trick: str) -> None:
    hooks = repository(tree)
    before = hooks.stat().st_ino
    run = attempt(cell, tree, TRICKS[trick])
    changed = not hooks.is_dir() or hooks.is_symlink() or (
        (os.listdir(hooks), hooks.stat().st_ino, hooks.stat().st_mode) != ([], before, 0o40755)
    )  # fmt: skip
    assert changed, run.stderr


def test_what_is_beside_it_stays_writable(cell: Cell, tree: Path) -> None:
    repository(tree)
    command = "echo x > .git/index.lock && mv .git/index.lock .git/index && echo y > y && mkdir -p a/b && mv y a/b"
    attempt(cell, tree, command, protect(".git/hooks"), protect(".git/config")).succeeded()
    assert (tree / "a/b/y").read_text() == "y\n"


def test_a_protected_file_cannot_be_replaced(cell: Cell, tree: Path) -> None:
    repository(tree)
    attempt(cell, tree, "echo x > new; mv new .git/config; echo x > .git/config", protect(".git/config"))
    assert (tree / ".git/config").read_text() == "content\n"


def test_a_file_with_other_names_is_not_called_protected(cell: Cell, tree: Path) -> None:
    """By its other name it could be written."""
    os.link(text(tree / "settings", ALICE.uid), tree / "other")
    wish = shell("true", bind(tree, "/t", BindFlag.WRITE), protect("settings"))
    failed = cell.refused(wish, ALICE)
    assert (failed.stage, failed.errno) == (Stage.TARGET, errno.EMLINK)


def test_nor_is_what_looks_like_a_placeholder_and_has_another_name(cell: Cell, tree: Path) -> None:
    """An earlier run, to which the place was not protected yet, can have left it."""
    trap = text(tree / ".envrc", ALICE.uid, stat.S_ISVTX | 0o444, content="")
    os.utime(trap, (0, 0))
    os.link(trap, tree / "other")
    wish = shell("chmod 644 other; echo evil > other", bind(tree, "/t", BindFlag.WRITE), protect(".envrc"), cwd="/t")
    failed = cell.refused(wish, ALICE)
    assert (failed.stage, failed.errno, trap.read_text()) == (Stage.TARGET, errno.EMLINK, "")


@pytest.mark.parametrize("link", [".git", ".git/hooks"])
def test_a_link_on_the_way_is_refused(cell: Cell, tree: Path, link: str) -> None:
    if link == ".git":
        directory(directory(tree / "real", ALICE.uid) / "hooks", ALICE.uid)
        (tree / ".git").symlink_to("real")
    else:
        directory(tree / ".git", ALICE.uid)
        (tree / ".git/hooks").symlink_to("/tmp")
    wish = shell("true", bind(tree, "/t", BindFlag.WRITE), protect(".git/hooks"))
    failed = cell.refused(wish, ALICE)
    assert (failed.stage, failed.errno) == (Stage.TARGET, errno.ELOOP)


def test_the_file_that_stands_in_a_directorys_place_is_protected_itself(cell: Cell, tree: Path) -> None:
    """In a worktree of git's, `.git` is a file that says where the rest is."""
    text(tree / ".git", ALICE.uid, content="gitdir: elsewhere\n")
    attempt(cell, tree, "rm .git; echo evil > .git", protect(".git/hooks"))
    assert (tree / ".git").read_text() == "gitdir: elsewhere\n"


# --- what is not there yet -------------------------------------------------------------------------------------------

ABSENT = {
    "a file": (".envrc", "echo x > .envrc", ".envrc"),
    "a directory": (".git/hooks", "mkdir -p .git/hooks && echo x > .git/hooks/post-commit", ".git"),
    "by renaming": (".envrc", "echo x > y; mv y .envrc", ".envrc"),
    "by linking": (".envrc", "echo x > y; ln -f y .envrc", ".envrc"),
    "by a symbolic link": (".envrc", "ln -sf /etc/passwd .envrc", ".envrc"),
    "after removing": (".envrc", "rm -f .envrc; echo x > .envrc", ".envrc"),
    "after moving": (".envrc", "mv .envrc y; echo x > .envrc", ".envrc"),
    "as a socket": (".envrc", "mkfifo .envrc", ".envrc"),
}


@pytest.mark.parametrize("how", ABSENT)
def test_what_is_not_there_cannot_be_made(cell: Cell, tree: Path, how: str) -> None:
    path, command, first = ABSENT[how]
    run = attempt(cell, tree, f"{command}; echo tried; stat -c %s {first}", protect(path))
    assert run.stdout == b"tried\n0\n"
    assert not (tree / first).exists()


@pytest.mark.parametrize("how", ABSENT)
def test_without_protection_it_would_have_been(cell: Cell, tree: Path, how: str) -> None:
    _, command, first = ABSENT[how]
    attempt(cell, tree, command)
    assert os.path.lexists(tree / first)


def test_nothing_of_it_stays_on_the_host(cell: Cell, tree: Path) -> None:
    directory(tree / ".git", ALICE.uid)
    held = (protect(".git/hooks/post-commit"), protect(".envrc"), protect(".git/config"))
    attempt(cell, tree, "true", *held).succeeded()
    assert (os.listdir(tree), os.listdir(tree / ".git")) == ([".git"], [])


def test_nothing_stays_where_the_run_never_started(cell: Cell, tree: Path) -> None:
    wish = Wish(["/no/such"], mounts=[bind(tree, "/t", BindFlag.WRITE), protect(".envrc")])
    assert cell.refused(wish, ALICE).stage is Stage.EXEC
    assert os.listdir(tree) == []


def test_nothing_stays_where_a_later_step_failed(cell: Cell, tree: Path) -> None:
    steps = (bind(tree, "/t", BindFlag.WRITE), protect(".envrc"), file("/etc/passwd", b""))
    assert cell.refused(shell("true", *steps), ALICE).stage is Stage.FILE
    assert os.listdir(tree) == []


def test_it_can_be_read_while_it_is_held(cell: Cell, tree: Path) -> None:
    """Programs look for such files, and stop at one that they may not open."""
    assert attempt(cell, tree, "cat .envrc && stat -c %u:%a .envrc", protect(".envrc")).succeeded() == "1000:1444\n"


def test_of_two_runs_the_last_removes_it(cells: Callable[..., Cell], tree: Path) -> None:
    read, write = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    first, second = cells(), cells()
    waiting = shell("echo ready; read line", bind(tree, "/t", BindFlag.WRITE), protect(".envrc"), cwd="/t")
    starts(first, waiting, [read, null, null])
    assert attempt(second, tree, "rm -f .envrc; echo x > .envrc; stat -c %s .envrc", protect(".envrc")).stdout == b"0\n"
    during = (tree / ".envrc").stat()
    os.write(write, b"\n")
    first.outcome()
    for fd in (read, write, null):
        os.close(fd)
    assert (during.st_mode, during.st_size, os.listdir(tree)) == (HELD_MODE, 0, [])


PASSES_ONE = """
import ctypes, resource, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50))
if ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()) < 0:
    raise OSError("capset")
one, other = socket.socketpair()
socket.send_fds(one, [b"x"], [0])
"""


def test_what_is_held_keeps_no_other_of_roots_from_passing_descriptors(cell: Cell, tree: Path) -> None:
    """What is on its way through sockets is counted for each user, and bounded for who has no capability."""
    read, write = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    held = [protect(f"held-{number}") for number in range(60)]
    starts(cell, shell("echo ready; read line", bind(tree, "/t", BindFlag.WRITE), *held, cwd="/t"), [read, null, null])
    passing = subprocess.run([sys.executable, "-c", PASSES_ONE], check=False, capture_output=True, timeout=PATIENCE_S)
    os.write(write, b"\n")
    cell.outcome()
    for fd in (read, write, null):
        os.close(fd)
    assert (passing.returncode, passing.stderr) == (0, b"")
    assert os.listdir(tree) == []


def starts(cell: Cell, wish: Wish, fds: list[int]) -> None:
    """Returns when the command has said that it is ready."""
    read, write = os.pipe()
    cell.order(wish.packed(), [fds[0], write, fds[2]], ALICE)
    os.close(write)
    cell.go()
    said = os.read(read, 16)
    os.close(read)
    assert said == b"ready\n", cell.outcome()


def test_what_a_killed_daemon_left_goes_with_the_next_run(cells: Callable[..., Cell], tree: Path) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    first = cells()
    starts(first, shell("echo ready; sleep 60", bind(tree, "/t", BindFlag.WRITE), protect(".envrc")), [null] * 3)
    first.process.kill()
    first.process.wait()
    os.close(null)
    left = os.listdir(tree)
    attempt(cells(), tree, "true", protect(".envrc")).succeeded()
    assert (left, os.listdir(tree)) == ([".envrc"], [])


def test_what_the_host_put_in_its_place_stays(cells: Callable[..., Cell], tree: Path) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    read, write = os.pipe()
    cell = cells()
    starts(
        cell, shell("echo ready; read line", bind(tree, "/t", BindFlag.WRITE), protect(".envrc")), [read, null, null]
    )
    os.rename(text(tree / "new", ALICE.uid, content="the owner's\n"), tree / ".envrc")
    os.write(write, b"\n")
    cell.outcome()
    for fd in (read, write, null):
        os.close(fd)
    assert (tree / ".envrc").read_text() == "the owner's\n"


@pytest.mark.parametrize("op", [Op.PROTECT, Op.HIDE])
@pytest.mark.parametrize("how", ["renamed over", "removed"])
def test_a_cover_that_the_host_takes_away_ends_the_run(
    cells: Callable[..., Cell], tree: Path, how: str, op: Op
) -> None:
    """As an editor does that saves by renaming: the kernel takes the mount with the name."""
    text(tree / ".envrc", ALICE.uid)
    read, write = os.pipe()
    cell, null = cells(), os.open("/dev/null", os.O_RDWR)
    step = protect(".envrc") if op is Op.PROTECT else Step(Op.HIDE, (), (b"/t/.envrc",))
    starts(cell, shell("echo ready; read line", bind(tree, "/t", BindFlag.WRITE), step), [read, null, null])
    if how == "removed":
        (tree / ".envrc").unlink()
    else:
        os.rename(text(tree / "new", ALICE.uid), tree / ".envrc")
    outcome, _ = cell.outcome()
    for fd in (read, write, null):
        os.close(fd)
    assert isinstance(outcome, Exited)
    assert (outcome.cause, outcome.stragglers & abi.UNCOVERED) == (Cause.VIOLATION, abi.UNCOVERED)


def test_what_the_host_does_beside_it_ends_nothing(cell: Cell, tree: Path) -> None:
    text(tree / ".envrc", ALICE.uid)
    read, write = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    starts(
        cell, shell("echo ready; read line", bind(tree, "/t", BindFlag.WRITE), protect(".envrc")), [read, null, null]
    )
    os.rename(text(tree / "new", ALICE.uid), tree / "other")
    (tree / "other").unlink()
    os.write(write, b"\n")
    outcome, _ = cell.outcome()
    for fd in (read, write, null):
        os.close(fd)
    assert isinstance(outcome, Exited)
    assert (outcome.cause, outcome.stragglers) == (Cause.EXITED, 0)


def test_an_empty_file_of_the_callers_is_none_of_ours(cell: Cell, tree: Path) -> None:
    text(tree / ".envrc", ALICE.uid, content="")
    attempt(cell, tree, "rm .envrc", protect(".envrc"))
    assert (tree / ".envrc").exists()


def test_where_nobody_can_make_anything_nothing_needs_holding(cell: Cell, tree: Path) -> None:
    directory(tree / "theirs", BOB, 0o755)
    run = attempt(cell, tree, "echo x > theirs/new", protect("theirs/new"))
    assert (run.outcome.si_status, os.listdir(tree / "theirs")) == (2, [])


def test_an_own_directory_without_the_right_to_write_is_no_way_around(cell: Cell, tree: Path) -> None:
    """Its owner may give it back: the name cannot be held there, so the run is refused."""
    directory(tree / "shut", ALICE.uid, 0o555)
    failed = cell.refused(shell("true", bind(tree, "/t", BindFlag.WRITE), protect("shut/new")), ALICE)
    assert (failed.stage, failed.errno) == (Stage.TARGET, errno.EACCES)


def test_a_name_in_a_private_directory_in_memory_is_held_too(cell: Cell) -> None:
    step = Step(Op.PROTECT, (Absent.HELD,), (b"/tmp/.profile",))
    run = cell.run(shell("rm -f /tmp/.profile; echo x > /tmp/.profile; stat -c %s /tmp/.profile", step))
    assert run.stdout == b"0\n"


def test_what_may_be_absent_and_is_may_be_made(cell: Cell, tree: Path) -> None:
    attempt(cell, tree, "echo x > .envrc", protect(".envrc", Absent.PASSED)).succeeded()
    assert (tree / ".envrc").read_text() == "x\n"


def test_what_must_be_there_and_is_not_refuses_the_run(cell: Cell, tree: Path) -> None:
    wish = shell("true", bind(tree, "/t", BindFlag.WRITE), protect(".envrc", Absent.REFUSED))
    failed = cell.refused(wish, ALICE)
    assert (failed.stage, failed.errno) == (Stage.TARGET, errno.ENOENT)


def test_a_writable_file_stays_writable_under_a_name_below_it(cell: Cell, tree: Path) -> None:
    note = text(tree / "note", ALICE.uid)
    step = Step(Op.PROTECT, (Absent.HELD,), (b"/note/.git",))
    cell.run(shell("echo x > /note", bind(note, "/note", BindFlag.WRITE), step), ALICE).succeeded()
    assert note.read_text() == "x\n"


@pytest.fixture
def not_closed(tree: Path) -> Iterator[None]:
    """The tree is a file system whose server shows a placeholder, and never answers who closes it."""
    with BalkingMount(tree, uid=ALICE.uid, mode=HELD_MODE, mapped=True) as mount:
        mount.ignored = {FLUSH}
        yield


@pytest.mark.skipif(KERNEL < (6, 12), reason="FUSE has no idmapped mounts here, so it is never to be written")
@pytest.mark.usefixtures("not_closed")
def test_a_file_that_cannot_be_closed_is_held_by_a_run_that_ends(cell: Cell, tree: Path) -> None:
    attempt(cell, tree, "true", protect("f")).succeeded()


@pytest.mark.skipif(KERNEL < (6, 12), reason="FUSE has no idmapped mounts here, so it is never to be written")
@pytest.mark.usefixtures("not_closed")
def test_and_by_a_sandbox_in_which_execs_begin_and_end(cell: Cell, tree: Path) -> None:
    wish = shell("-", bind(tree, "/t", BindFlag.WRITE), protect("f"))
    with Sandbox(cell, wish, ALICE) as sandbox:
        assert sandbox.run(shell("echo ran")).succeeded() == "ran\n"
        assert sandbox.kill().cause is Cause.KILLED


def test_holding_and_letting_go_at_once_by_many_runs(cells: Callable[..., Cell], tree: Path) -> None:
    """Whoever comes while another leaves neither loses the place nor leaves it behind."""
    parked = [cells() for _ in range(4)]
    wrong: list[object] = []

    def work(cell: Cell) -> None:
        run = attempt(cell, tree, "rm -f .envrc; echo x > .envrc; stat -c %s .envrc", protect(".envrc"))
        if run.stdout != b"0\n":
            wrong.append((run.stdout, run.stderr))

    threads = [threading.Thread(target=work, args=(cell,)) for cell in parked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (wrong, os.listdir(tree)) == ([], [])


def test_a_placeholder_of_the_payloads_making_is_an_empty_file_and_no_more(cell: Cell, tree: Path) -> None:
    """One that looks like ours, in a directory where nothing is protected."""
    give(text(tree / "fake", ALICE.uid, content=""), ALICE.uid, 0o1444)
    os.utime(tree / "fake", (0, 0))
    attempt(cell, tree, "true", protect(".envrc")).succeeded()
    assert (tree / "fake").exists()
