"""A directory and a link out change places all the time, while a command goes through the name."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from immured.isolation.files_words import FilesFlag, FilesOp
from tests.patience import PATIENCE_S
from tests.traversal.acts import tar_of
from tests.traversal.alone import OWNER, Alone, Refusal
from tests.traversal.vectors import SECRET, picture, plant

SWAPPER = Path(__file__).parents[1] / "warden" / "swapper.c"
ROUNDS = 300


@pytest.fixture(scope="session")
def swapper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("native") / "swapper"
    subprocess.run(["gcc", "-O1", "-static", SWAPPER, "-o", program], check=True)
    return program


@pytest.fixture
def outside(root: Path) -> Path:
    path = root.parent / "outside"
    plant(root, path)
    # `turn` is a directory with a file `secret`, or a link out; `file` a file, or a link to one outside.
    (root / "turn").mkdir()
    (root / "turn" / "secret").write_bytes(b"inside")
    (root / "file").write_bytes(b"inside")
    for path_ in (root / "turn", root / "turn" / "secret", root / "file"):
        os.chown(path_, OWNER, OWNER)
    return path


@pytest.fixture
def racing(swapper: Path, root: Path, outside: Path) -> Iterator[Path]:
    process = subprocess.Popen(
        [
            swapper,
            root / "turn",
            root / "relative",
            root / "file",
            root / "secret-relative",
            root / "a" / "b",
            root / "chain",
        ]
    )
    yield outside
    process.kill()
    process.wait(PATIENCE_S)


def test_control_who_looks_first_and_opens_then_is_led_out(root: Path, racing: Path) -> None:
    for _ in range(1_000_000):
        if not (root / "file").is_symlink():
            try:
                if (root / "file").read_bytes() == SECRET:
                    return
            except FileNotFoundError:
                continue
    pytest.fail("it never was")


@pytest.mark.parametrize("path", [b"/turn/secret", b"/file"])
def test_what_is_read_is_never_from_outside(clerk: Alone, racing: Path, path: bytes) -> None:
    got = refused = 0
    deadline = time.monotonic() + PATIENCE_S
    while got < 20 or refused < 20:
        assert time.monotonic() < deadline, f"{got} reads, {refused} refusals: they never met"
        try:
            assert clerk.get(path) == b"inside"
            got += 1
        except Refusal:
            refused += 1


def test_what_is_written_made_moved_and_changed_is_never_outside(clerk: Alone, racing: Path) -> None:
    before = picture(racing)
    plain = tar_of(("turn/planted", b"x"), ("planted", b"x"))
    for _ in range(ROUNDS // 3):
        for act in (
            lambda: clerk.put(b"/turn/secret", b"inside"),
            lambda: clerk.put(b"/file", b"inside"),
            lambda: clerk.put(b"/turn/new/file", flags=FilesFlag.PARENTS | FilesFlag.REPLACE),
            lambda: clerk.ask(FilesOp.MKDIR, b"/turn/made", mode=0o755),
            lambda: clerk.ask(FilesOp.CHMOD, b"/file", mode=0o600),
            lambda: clerk.ask(FilesOp.CHMOD, b"/turn/secret", mode=0o600),
            lambda: clerk.ask(FilesOp.MOVE, b"/turn/secret", b"/turn/moved", flags=FilesFlag.REPLACE),
            lambda: clerk.ask(FilesOp.MOVE, b"/turn/moved", b"/turn/secret", flags=FilesFlag.REPLACE),
            lambda: clerk.extract(b"/", plain),
            lambda: clerk.extract(b"/turn", plain),
            lambda: clerk.remove(b"/turn/below", recursive=True),
        ):
            try:
                act()
            except Refusal:
                continue
    assert picture(racing) == before


def test_an_archive_made_meanwhile_holds_nothing_from_outside(clerk: Alone, racing: Path) -> None:
    for _ in range(ROUNDS // 3):
        assert SECRET not in clerk.archive(b"/")


def test_a_pattern_never_finds_what_is_outside(clerk: Alone, racing: Path) -> None:
    for _ in range(ROUNDS):
        assert not [path for path in clerk.glob(b"/**") if path.endswith((b"/below", b"/below/secret"))]


def test_what_is_removed_meanwhile_is_never_outside(clerk: Alone, root: Path, racing: Path) -> None:
    before = picture(racing)
    for _ in range(20):
        for name in (b"/turn", b"/relative", b"/a"):
            try:
                clerk.remove(name, recursive=True)
            except Refusal:
                continue
        for directory in (root / "turn", root / "a" / "b"):
            try:
                (directory / "below").mkdir(parents=True)
                os.chown(directory, OWNER, OWNER)
                os.chown(directory / "below", OWNER, OWNER)
            except OSError:
                continue
    assert picture(racing) == before
