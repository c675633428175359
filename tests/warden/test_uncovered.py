"""When a mount of a cell's goes: what the plan covers ends the run, what a caller's tree brought along ends nothing."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from immured.isolation import abi
from immured.isolation.abi import Absent, BindFlag, Cause, Op, Stage
from immured.isolation.messages import Exited
from immured.isolation.plan import Step
from tests.patience import until
from tests.warden.cell import Cell, Pipes, bind
from tests.warden.places import ALICE, directory, mounted, shell, tells_mounts_apart, text
from tests.warden.sandbox import Sandbox

MS_RDONLY = 1
MANY = 300
WRITABLE = BindFlag.WRITE
ENDED = (Cause.VIOLATION, abi.UNCOVERED)
WENT_ON = (Cause.EXITED, 0)


@pytest.fixture
def tree() -> Iterator[Path]:
    """A directory of the caller's, to be written, with something to be covered in it."""
    above = Path(tempfile.mkdtemp(prefix="immured-uncovered-"))
    above.chmod(0o755)
    path = directory(above / "tree", ALICE.uid)
    directory(directory(path / ".git", ALICE.uid) / "hooks", ALICE.uid)
    text(path / ".envrc", ALICE.uid)
    yield path
    shutil.rmtree(above)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is mounted on the host, and not taken away by the test."""
    with ExitStack() as stack:
        yield stack


def attach(stack: ExitStack, at: Path, flags: int = 0) -> Path:
    """A file system of the host's, at a new directory."""
    stack.enter_context(mounted("none", directory(at, ALICE.uid), "tmpfs", flags))
    return at


def take_away(place: Path) -> None:
    """As who serves automounts does it: the name goes too, and with it the mount in every namespace."""
    subprocess.run(["umount", "--lazy", place], check=True)
    place.rmdir()


def replace_file(place: Path) -> None:
    """As an editor does that saves by renaming."""
    os.rename(text(place.with_name("new"), ALICE.uid), place)


def protect(path: str, absent: Absent = Absent.HELD) -> Step:
    return Step(Op.PROTECT, (absent,), (f"/t/{path}".encode(),))


def hide(path: str) -> Step:
    return Step(Op.HIDE, (), (f"/t/{path}".encode(),))


def memory(path: str) -> Step:
    return Step(Op.TMPFS, (1 << 20, 100, 0o755, 0), (f"/t/{path}".encode(),))


class Living:
    """A run that waits for a line, with its tree at /t."""

    def __init__(self, cell: Cell, tree: Path, *steps: Step) -> None:
        self.cell = cell
        read, self.write = os.pipe()
        self.pipes = Pipes(b"")
        wish = shell("echo ready; read line; ls /t", bind(tree, "/t", WRITABLE), *steps)
        cell.order(wish.packed(), [read, *self.pipes.theirs[1:]], ALICE)
        os.close(read)
        self.pipes.close_theirs()
        cell.go()

    def __enter__(self) -> Living:
        try:
            self.pipes.wait_for(b"ready\n")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.write)
        self.cell.close()
        self.pipes.__exit__(None, None, None)

    def ended(self) -> tuple[Cause, int]:
        """By itself: its line never comes."""
        outcome, _ = self.cell.outcome()
        assert isinstance(outcome, Exited), outcome
        return outcome.cause, outcome.stragglers & abi.UNCOVERED

    def finished(self) -> tuple[Cause, int]:
        os.write(self.write, b"\n")
        return self.ended()

    def sees(self, name: str) -> bool:
        """Whether its mount table has a mount of this name."""
        return name in mount_points(self.cell)


def mount_points(cell: Cell) -> list[str]:
    table = Path(f"/proc/{cell.process.pid}/mountinfo").read_text()
    return [line.split()[4].rpartition("/")[2] for line in table.splitlines()]


def taken_away(living: Living, place: Path) -> None:
    assert living.sees(place.name)
    take_away(place)
    assert not living.sees(place.name)


COVERS = {"protected": protect(".envrc"), "hidden": hide(".envrc"), "held": protect(".profile")}


@tells_mounts_apart
@pytest.mark.parametrize("cover", COVERS)
def test_a_file_system_that_goes_beside_a_cover_ends_nothing(
    cell: Cell, tree: Path, stack: ExitStack, cover: str
) -> None:
    other = attach(stack, tree / "other")
    with Living(cell, tree, COVERS[cover]) as living:
        taken_away(living, other)
        assert living.finished() == WENT_ON


@tells_mounts_apart
def test_nor_one_in_a_directory_on_the_way_to_a_cover(cell: Cell, tree: Path, stack: ExitStack) -> None:
    """Which is mounted over itself, with all that is mounted in it: both go."""
    other = attach(stack, tree / ".git/other")
    with Living(cell, tree, protect(".git/hooks")) as living:
        assert mount_points(cell).count("other") == 2
        taken_away(living, other)
        assert living.finished() == WENT_ON


@tells_mounts_apart
def test_nor_one_in_what_is_protected(cell: Cell, tree: Path, stack: ExitStack) -> None:
    other = attach(stack, tree / ".git/other")
    with Living(cell, tree, protect(".git")) as living:
        taken_away(living, other)
        assert living.finished() == WENT_ON


def test_nor_what_is_only_unmounted(cell: Cell, tree: Path, stack: ExitStack) -> None:
    """The run keeps what it was given: nothing goes at all."""
    other = attach(stack, tree / "other")
    with Living(cell, tree, protect(".envrc")) as living:
        subprocess.run(["umount", "--lazy", other], check=True)
        assert living.sees("other")
        assert living.finished() == WENT_ON


LOST: dict[str, tuple[Step, Callable[[Path], None]]] = {
    "protected, and replaced": (protect(".envrc"), lambda tree: replace_file(tree / ".envrc")),
    "protected, and removed": (protect(".envrc"), lambda tree: (tree / ".envrc").unlink()),
    "a directory": (protect(".git/hooks"), lambda tree: (tree / ".git/hooks").rmdir()),
    "the directory above": (protect(".git/hooks"), lambda tree: shutil.rmtree(tree / ".git")),
    "hidden": (hide(".envrc"), lambda tree: replace_file(tree / ".envrc")),
    "held": (protect(".profile"), lambda tree: replace_file(tree / ".profile")),
    "a bind": (bind("/etc/hostname", "/t/.envrc"), lambda tree: replace_file(tree / ".envrc")),
    "memory": (memory(".git/hooks"), lambda tree: (tree / ".git/hooks").rmdir()),
}  # fmt: skip


@tells_mounts_apart
@pytest.mark.parametrize("what", LOST)
def test_what_the_plan_covers_ends_the_run_also_after_something_else_went(
    cell: Cell, tree: Path, stack: ExitStack, what: str
) -> None:
    step, lose = LOST[what]
    other = attach(stack, tree / "other")
    with Living(cell, tree, step) as living:
        taken_away(living, other)
        lose(tree)
        assert living.ended() == ENDED


def test_a_cover_that_goes_with_the_file_system_that_it_stands_in_ends_the_run(
    cell: Cell, tree: Path, stack: ExitStack
) -> None:
    """Another directory may stand there in a moment, and nothing would be protected in it."""
    other = attach(stack, tree / "other")
    text(other / "settings", ALICE.uid)
    with Living(cell, tree, protect("other/settings")) as living:
        take_away(other)
        assert living.ended() == ENDED


@pytest.mark.parametrize("path", ["other", "other/settings", "other/missing", "other/not/there"])
def test_what_needs_no_cover_where_nobody_may_write_is_uncovered_when_that_goes(
    cell: Cell, tree: Path, stack: ExitStack, path: str
) -> None:
    other = attach(stack, tree / "other")
    text(other / "settings", ALICE.uid)
    subprocess.run(["mount", "-o", "remount,ro", other], check=True)
    with Living(cell, tree, protect(path)) as living:
        take_away(other)
        assert living.ended() == ENDED


@tells_mounts_apart
def test_many_that_go_end_nothing_and_hide_nothing(cell: Cell, tree: Path, stack: ExitStack) -> None:
    others = [attach(stack, tree / f"other{number}") for number in range(MANY)]
    with Living(cell, tree, protect(".envrc")) as living:
        for other in others[1:]:
            take_away(other)
        assert living.sees("other0")
        assert not living.sees("other1")
        take_away(others[0])
        replace_file(tree / ".envrc")
        assert living.ended() == ENDED


def test_another_mount_at_its_place_is_no_cover(cell: Cell, tree: Path) -> None:
    """Put there between the event and the look, and with the same number in the table: it gives them out again."""
    with Living(cell, tree, protect(".envrc")) as living:
        warden = living.cell.process.pid
        os.kill(warden, signal.SIGSTOP)
        try:
            replace_file(tree / ".envrc")
            assert not living.sees(".envrc")
            enter = ["nsenter", f"--mount=/proc/{warden}/ns/mnt", "mount", "--bind", "/t/.envrc", "/t/.envrc"]
            subprocess.run(enter, check=True)
            assert living.sees(".envrc")
        finally:
            os.kill(warden, signal.SIGCONT)
        assert living.ended() == ENDED


@tells_mounts_apart
def test_a_cover_that_goes_while_the_rest_is_set_up_refuses_the_run(cell: Cell, tree: Path) -> None:
    """Nobody was told of it: the table only tells of what comes after."""
    waits = text(tree / ".waits", ALICE.uid, stat.S_ISVTX | 0o444, content="")
    os.utime(waits, (0, 0))
    lease = os.open(waits, os.O_RDWR)
    fcntl.fcntl(lease, fcntl.F_SETSIG, signal.SIGURG)  # which nobody hears, where SIGIO would end us
    fcntl.fcntl(lease, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    with Pipes(b"") as pipes:
        try:
            wish = shell("cat /t/.envrc", bind(tree, "/t", WRITABLE), protect(".envrc"), protect(".waits"))
            cell.order(wish.packed(), pipes.theirs, ALICE)
            until(lambda: ".envrc" in mount_points(cell))
            replace_file(tree / ".envrc")
            assert ".envrc" not in mount_points(cell)
        finally:
            os.close(lease)
        failed = cell.failure()
    assert (failed.stage, failed.errno) == (Stage.MOUNT, errno.ESTALE)


def test_before_linux_6_8_nobody_can_tell_and_whatever_goes_ends_the_run(
    harness_of_old: Path, cells: Callable[..., Cell], tree: Path, stack: ExitStack
) -> None:
    cell = cells(harness=harness_of_old)
    other = attach(stack, tree / "other")
    with Living(cell, tree, protect(".envrc")) as living:
        take_away(other)
        assert living.ended() == ENDED


# --- in a sandbox that lives -----------------------------------------------------------------------------------------


@tells_mounts_apart
def test_a_sandbox_lives_on_as_well_and_is_ended_as_well(cell: Cell, tree: Path, stack: ExitStack) -> None:
    other = attach(stack, tree / "other")
    wish = shell("-", bind(tree, "/t", WRITABLE), protect(".envrc"))
    with Sandbox(cell, wish, ALICE) as sandbox:
        one = sandbox.start(shell("echo ready; sleep 1000"))
        one.wait_for_output(b"ready\n")
        assert "other" in mount_points(cell)
        take_away(other)
        sandbox.measure()
        assert sandbox.run(shell("ls -A /t")).succeeded() == ".envrc\n.git\n"
        replace_file(tree / ".envrc")
        ended, last = sandbox.ended(), one.exited()
    assert [(it.cause, it.stragglers & abi.UNCOVERED) for it in (ended, last)] == [ENDED, (Cause.VIOLATION, 0)]
