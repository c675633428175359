"""A hostile owner of what is bound: exchanges names with links to elsewhere at every moment of a run's preparation.

Each attempt has a race in it that may go either way. So what is asserted holds whichever way it went: nothing of
anybody else's is read, covered, written or brought back, and the host's mounts are as before.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from immured.isolation.abi import Absent, BindFlag, Op
from immured.isolation.messages import Failed
from immured.isolation.plan import Step
from tests.warden.cell import Cell, Run, Wish, bind, file
from tests.warden.conftest import FLAGS, HERE
from tests.warden.places import ALICE, BOB, directory, host_mounts, shell, text

ATTEMPTS = 12
SECRET = "the secret of somebody else\n"


@pytest.fixture(scope="module")
def swapper() -> Iterator[Path]:
    above = Path(tempfile.mkdtemp(prefix="immured-racing-"))
    above.chmod(0o755)
    program = above / "swapper"
    subprocess.run(["gcc", *FLAGS, HERE / "swapper.c", "-o", program], check=True)
    yield program
    shutil.rmtree(above)


@pytest.fixture
def place() -> Iterator[Path]:
    """`mine`, the caller's, with `inner/` and `note`; `theirs`, with a secret, to which links in `mine` lead."""
    above = Path(tempfile.mkdtemp(prefix="immured-racing-"))
    above.chmod(0o755)
    mine = directory(above / "mine", ALICE.uid)
    text(directory(mine / "inner", ALICE.uid) / "note", ALICE.uid, content="mine\n")
    directory(mine / "inner/deep", ALICE.uid)
    text(mine / "note", ALICE.uid, content="mine\n")
    theirs = directory(above / "theirs", BOB, 0o700)
    text(theirs / "note", BOB, 0o600, content=SECRET)
    directory(theirs / "deep", BOB)
    os.symlink(theirs, mine / "way")
    os.symlink(theirs / "note", mine / "link")
    os.symlink("/etc", mine / "etc")
    directory(mine / "inner/certs", ALICE.uid)
    os.symlink("/etc/ssl", mine / "ssl")
    yield above
    shutil.rmtree(above)


@contextmanager
def swapping(swapper: Path, *names: Path) -> Iterator[None]:
    """The owner at work."""
    with subprocess.Popen([swapper, *names], user=ALICE.uid, group=ALICE.gid, extra_groups=[]) as process:
        try:
            yield
        finally:
            process.kill()


def race(
    cells: Callable[..., Cell], swapper: Path, names: tuple[Path, Path], wish: Callable[[], Wish]
) -> list[Run | Failed]:
    """That wish over and over while the names are exchanged."""
    place = names[0].parent.parent
    before = host_mounts(place)
    results = []
    with swapping(swapper, *names):
        for attempt in range(ATTEMPTS):
            cell = cells(slot=attempt % 4)
            results.append(cell.attempt(wish(), ALICE))
            cell.close()
    assert host_mounts(place) == before
    return results


def outputs(results: list[Run | Failed]) -> set[str]:
    """What the runs that started said."""
    return {result.text for result in results if isinstance(result, Run)}


@pytest.mark.parametrize("what", ["a directory", "a file"])
def test_the_source_of_a_bind(cells: Callable[..., Cell], swapper: Path, place: Path, what: str) -> None:
    mine = place / "mine"
    names = (mine / "inner", mine / "way") if what == "a directory" else (mine / "note", mine / "link")
    command = "cat /b/note 2>&1" if what == "a directory" else "cat /b 2>&1"
    results = race(cells, swapper, names, lambda: shell(command, bind(names[0], "/b")))
    assert SECRET not in "".join(outputs(results))


def test_the_directory_above_a_source(cells: Callable[..., Cell], swapper: Path, place: Path) -> None:
    names = (place / "mine/inner", place / "mine/way")
    results = race(cells, swapper, names, lambda: shell("cat /b 2>&1", bind(names[0] / "note", "/b")))
    assert outputs(results) <= {"mine\n"}


def test_a_writable_source(cells: Callable[..., Cell], swapper: Path, place: Path) -> None:
    names = (place / "mine/inner", place / "mine/way")
    race(cells, swapper, names, lambda: shell("echo x > /b/new", bind(names[0], "/b", BindFlag.WRITE)))
    assert sorted(os.listdir(place / "theirs")) == ["deep", "note"]


def test_the_place_of_a_mount(cells: Callable[..., Cell], swapper: Path, place: Path) -> None:
    """A link to /etc where the place was: were it followed, the cell's own /etc would be covered."""
    mine = place / "mine"
    names = (mine / "inner", mine / "etc")
    wish = lambda: shell(  # noqa: E731
        "test -e /etc/passwd && ! test -e /etc/note && echo fine", bind(mine, "/m"), bind(mine / "inner", "/m/inner")
    )
    assert outputs(race(cells, swapper, names, wish)) <= {"fine\n"}


def test_the_place_of_a_private_directory(cells: Callable[..., Cell], swapper: Path, place: Path) -> None:
    mine = place / "mine"
    scratch = Step(Op.TMPFS, (4096, 10, 0o700, 0), (b"/m/inner",))
    wish = lambda: shell("test -e /etc/passwd && echo fine", bind(mine, "/m"), scratch)  # noqa: E731
    assert outputs(race(cells, swapper, (mine / "inner", mine / "etc"), wish)) <= {"fine\n"}


@pytest.mark.parametrize("op", [Op.HIDE, Op.PROTECT])
def test_what_is_covered(cells: Callable[..., Cell], swapper: Path, place: Path, op: Op) -> None:
    mine = place / "mine"
    step = Step(op, () if op is Op.HIDE else (Absent.HELD,), (b"/m/inner/certs",))
    command = "ls /etc/ssl/certs | grep -q . && echo fine"
    wish = lambda: shell(command, bind(mine, "/m", BindFlag.WRITE), step)  # noqa: E731
    assert outputs(race(cells, swapper, (mine / "inner", mine / "ssl"), wish)) <= {"fine\n"}


def test_a_place_that_is_held(cells: Callable[..., Cell], swapper: Path, place: Path) -> None:
    """Nothing is made, and nothing removed, anywhere but in what is the caller's."""
    mine = place / "mine"
    step = Step(Op.PROTECT, (Absent.HELD,), (b"/m/inner/absent",))
    race(cells, swapper, (mine / "inner", mine / "way"), lambda: shell("true", bind(mine, "/m", BindFlag.WRITE), step))
    assert sorted(os.listdir(place / "theirs")) == ["deep", "note"]
    assert not Path("/etc/absent").exists()


def test_a_file_that_is_put_in(cells: Callable[..., Cell], swapper: Path, place: Path) -> None:
    mine = place / "mine"
    wish = lambda: shell("true", bind(mine, "/m", BindFlag.WRITE), file("/m/inner/new", b"x"))  # noqa: E731
    race(cells, swapper, (mine / "inner", mine / "way"), wish)
    assert sorted(os.listdir(place / "theirs")) == ["deep", "note"]


def test_a_file_that_is_collected(cells: Callable[..., Cell], swapper: Path, place: Path) -> None:
    """A link out of what is bound leads to the same path of the sandbox's own."""
    mine = place / "mine"
    wish = lambda: shell("sleep 0.02", bind(mine, "/m"), collect=["/m/inner/note"])  # noqa: E731
    found = set()
    for result in race(cells, swapper, (mine / "inner", mine / "way"), wish):
        for fd in result.files if isinstance(result, Run) else ():
            with os.fdopen(fd) as collected:
                found.add(collected.read())
    assert found <= {"mine\n"}


def test_the_working_directory(cells: Callable[..., Cell], swapper: Path, place: Path) -> None:
    mine = place / "mine"
    wish = lambda: Wish(["cat", "note"], mounts=[bind(mine, "/m")], cwd="/m/inner")  # noqa: E731
    assert outputs(race(cells, swapper, (mine / "inner", mine / "way"), wish)) <= {"mine\n", ""}


def test_the_root(cells: Callable[..., Cell], swapper: Path, place: Path) -> None:
    root = directory(place / "mine/root", ALICE.uid)
    for name in ("bin", "dev", "proc", "tmp"):
        directory(root / name, ALICE.uid)
    for name in ("sh", "cat"):
        shutil.copy("/bin/busybox", root / "bin" / name)
    os.symlink(place / "theirs", place / "mine/other")
    names = (root, place / "mine/other")
    wish = lambda: Wish(["/bin/sh", "-c", "cat /note"], cwd="/", rootfs=str(root))  # noqa: E731
    assert SECRET not in "".join(outputs(race(cells, swapper, names, wish)))
