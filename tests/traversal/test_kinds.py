"""What is no regular file, no plain name and no sane size: refused or carried as it is, and nobody waits."""

from __future__ import annotations

import errno
import io
import os
import random
import socket
import stat
import tarfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from immured.isolation.files_words import NO_FLAGS, FilesFlag, FilesOp, FilesRefusal
from tests.traversal.acts import ACTS, tar_of
from tests.traversal.alone import OWNER, Alone, Refusal
from tests.walls.unanswering import UnansweringMount

R = FilesRefusal


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def _zero(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))


def _block(path: Path) -> None:
    os.mknod(path, stat.S_IFBLK | 0o666, os.makedev(7, 200))


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _dangling(path: Path) -> None:
    path.symlink_to("nothing-there")


KINDS: dict[str, Callable[[Path], None]] = {
    "fifo": _pipe, "socket": _socket, "character": _zero, "block": _block,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("act", ["get", "get by descriptor", "put", "list", "archive", "extract"])
def test_what_is_no_file_is_neither_read_nor_written(clerk: Alone, root: Path, kind: str, act: str) -> None:
    """A pipe with a name has nobody at its other end: who opens it waits for good."""
    KINDS[kind](root / "odd")
    one = next(one for one in ACTS if one.name == act)
    with pytest.raises(Refusal) as refused:
        one.clerk(clerk, b"/odd")
    assert refused.value.why is R.KIND or refused.value.error == errno.ENOTDIR
    assert clerk.names(b"/") == {b"odd": kind}


def test_control_who_opens_a_pipe_with_a_name_waits(root: Path) -> None:
    import subprocess

    _pipe(root / "odd")
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(["cat", root / "odd"], timeout=1, check=False)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_shown_moved_and_removed(clerk: Alone, root: Path, kind: str) -> None:
    KINDS[kind](root / "odd")
    os.chown(root / "odd", OWNER, OWNER)
    assert clerk.ask(FilesOp.STAT, b"/odd").rows[0].kind == kind
    clerk.ask(FilesOp.MOVE, b"/odd", b"/moved")
    clerk.remove(b"/moved")
    assert clerk.names(b"/") == {}


@pytest.mark.parametrize("make", [_loop, _dangling])
def test_links_that_lead_nowhere(clerk: Alone, root: Path, make: Callable[[Path], None]) -> None:
    make(root / "odd")
    for one in ACTS:
        if one.name in ("get", "stat, following", "list", "archive", "extract"):
            with pytest.raises(Refusal) as refused:
                one.clerk(clerk, b"/odd")
            assert refused.value.why in (R.LINK, R.FAILED)
    clerk.put(b"/odd", b"in its place")
    assert (root / "odd").read_bytes() == b"in its place"


NAMES = [
    b"with\nnewline", b"\xff\xfe\x80", b"-rf", b" ", b"\x1b]0;title\x07", b"a" * 255, b"...", b"*", b"[", b"\\",
    b"%s%n", "\u202eexe.txt".encode(), b"~", b"$(id)", b"'\"`;|&", b"\xed\xa0\x80", b"..a", b"a..",
    b".immured-0000000000000000",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=[ascii(name)[:24] for name in NAMES])
def test_every_name_that_the_kernel_takes(clerk: Alone, root: Path, name: bytes) -> None:
    path, other = b"/" + name, b"/d/" + name
    clerk.ask(FilesOp.MKDIR, b"/d", mode=0o755)
    clerk.put(path, name)
    assert clerk.get(path) == name
    assert clerk.ask(FilesOp.STAT, path).rows[0].size == len(name)
    assert name in clerk.names(b"/")
    clerk.ask(FilesOp.CHMOD, path, mode=0o600)
    clerk.ask(FilesOp.MOVE, path, other)
    assert os.fsencode(os.listdir(os.fsencode(root / "d"))[0]) == name
    quoted = b"".join(b"\\" + bytes([c]) if c in b"*?[\\" else bytes([c]) for c in name)
    assert clerk.glob(b"/d/" + quoted) == [other]
    with tarfile.open(fileobj=io.BytesIO(clerk.archive(b"/d"))) as archive:
        assert os.fsencode(archive.getnames()[1]) == b"./" + name
    clerk.remove(other)
    assert clerk.names(b"/d") == {}


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (b"", R.NAME), (b"relative", R.NAME), (b"./x", R.NAME), (b"/x/..", R.OUTSIDE), (b"/..", R.OUTSIDE),
        (b"/" + b"a" * 256, R.FAILED), (b"/" + b"d/" * 2047, R.FAILED), (b"/file/below", R.FAILED),
        (b"/file/", R.FAILED),
    ],
)  # fmt: skip
def test_paths_that_are_none(clerk: Alone, root: Path, path: bytes, why: FilesRefusal) -> None:
    (root / "file").write_bytes(b"")
    with pytest.raises(Refusal) as refused:
        clerk.get(path)
    assert refused.value.why is why


@pytest.mark.parametrize("path", [b"/", b"//", b"/.", b"/a/."])
def test_the_root_itself_is_neither_moved_nor_removed_nor_replaced(clerk: Alone, root: Path, path: bytes) -> None:
    (root / "a").mkdir()
    asks: tuple[Callable[[], object], ...] = (
        lambda: clerk.remove(path, recursive=True),
        lambda: clerk.put(path),
        lambda: clerk.ask(FilesOp.MOVE, path, b"/b"),
        lambda: clerk.ask(FilesOp.MOVE, b"/a", path),
        lambda: clerk.ask(FilesOp.CHMOD, path, mode=0),
        lambda: clerk.ask(FilesOp.MKDIR, path, mode=0o755),
    )
    for ask in asks:
        with pytest.raises(Refusal) as refused:
            ask()
        assert refused.value.why is R.NAME
    assert (root / "a").is_dir()


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6777, 0o10644, 0o1644])
def test_no_file_gets_more_than_permissions(clerk: Alone, root: Path, mode: int) -> None:
    clerk.put(b"/file")
    asks: tuple[Callable[[], object], ...] = (
        lambda: clerk.put(b"/file", mode=mode),
        lambda: clerk.ask(FilesOp.CHMOD, b"/file", mode=mode),
        lambda: clerk.ask(FilesOp.MKDIR, b"/d", mode=mode | 0o4000),
    )
    for ask in asks:
        with pytest.raises(Refusal) as refused:
            ask()
        assert refused.value.why is R.SETID
    assert (root / "file").stat().st_mode & 0o7777 == 0o644


def test_the_mode_of_a_set_id_file_that_is_replaced_is_not_taken_over(clerk: Alone, root: Path) -> None:
    (root / "file").write_bytes(b"old")
    (root / "file").chmod(0o6755)
    clerk.put(b"/file", b"new", flags=FilesFlag.REPLACE | FilesFlag.KEEP_MODE)
    assert (root / "file").stat().st_mode & 0o7777 == 0o755


def test_a_sparse_bomb_is_refused_before_a_byte_is_read(clerk: Alone, root: Path) -> None:
    with open(root / "bomb", "wb") as file:
        file.truncate(1 << 43)
    os.chown(root / "bomb", OWNER, OWNER)
    with pytest.raises(Refusal) as refused:
        clerk.get(b"/bomb", most=8 << 30)
    assert refused.value.why is R.LARGE
    with pytest.raises(Refusal) as refused:
        clerk.archive(b"/", most=8 << 30)
    assert refused.value.why is R.LARGE
    row = clerk.ask(FilesOp.STAT, b"/bomb").rows[0]
    assert (row.size, row.allocated) == (1 << 43, 0)


def deep(root: Path, levels: int, name: str = "d") -> None:
    """Directories below each other, deeper than any path can say."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=fd)
        os.chown(name, OWNER, OWNER, dir_fd=fd)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


@pytest.mark.parametrize(("levels", "name"), [(600, "d"), (5000, "d"), (300, "n" * 200)])
def test_a_tree_that_is_too_deep_is_told_so_and_can_be_removed(
    clerk: Alone, root: Path, levels: int, name: str
) -> None:
    deep(root, levels, name)
    with pytest.raises(Refusal) as refused:
        clerk.archive(b"/")
    assert refused.value.why is R.DEEP
    found = clerk.ask(FilesOp.GLOB, b"/**/x", numbers=(0, 10))
    assert FilesFlag.CUT in found.flags or not found.rows
    clerk.remove(b"/" + name.encode(), recursive=True)
    assert os.listdir(root) == []


def test_directories_that_nobody_may_enter_are_removed_by_their_owner(clerk: Alone, root: Path) -> None:
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file").write_bytes(b"")
    for path in (root / "a", root / "a" / "b", root / "a" / "b" / "file"):
        os.chown(path, OWNER, OWNER)
    (root / "a" / "b").chmod(0)
    clerk.remove(b"/a", recursive=True)
    assert os.listdir(root) == []


def test_a_pattern_that_takes_others_for_ever(clerk: Alone, root: Path) -> None:
    """`a*a*a*...b` against aaaa...: exponential in the C library's fnmatch."""
    (root / ("a" * 250)).write_bytes(b"")
    assert clerk.glob(b"/" + b"a*" * 120 + b"b") == []
    assert clerk.glob(b"/" + b"a*" * 120) == [b"/" + b"a" * 250]
    assert clerk.glob(b"/" + b"**/" * 59 + b"a*") == [b"/" + b"a" * 250]


def test_patterns(clerk: Alone, root: Path) -> None:
    for name in ("a.py", "b.py", "c.txt", ".hidden.py", "d/e.py", "d/f/g.py", "d/.h/i.py", "[x].py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    for pattern, expected in {
        b"/*.py": {b"/a.py", b"/b.py", b"/[x].py"}, b"/[ab].py": {b"/a.py", b"/b.py"},
        b"/[!a].py": {b"/b.py"}, b"/[a-b].py": {b"/a.py", b"/b.py"}, b"/?.txt": {b"/c.txt"},
        b"/**/*.py": {b"/a.py", b"/b.py", b"/[x].py", b"/d/e.py", b"/d/f/g.py"}, b"/.*": {b"/.hidden.py"},
        b"/d/**": {b"/d/e.py", b"/d/f", b"/d/f/g.py"}, b"/d/.h/*": {b"/d/.h/i.py"}, b"/nothing/*": set(),
        b"/\\[x].py": {b"/[x].py"}, b"/[[]x].py": {b"/[x].py"}, b"/d/*/g.py": {b"/d/f/g.py"}, b"/a.py": {b"/a.py"},
    }.items():  # fmt: skip
        assert set(clerk.glob(pattern)) == expected, pattern


def test_a_large_directory_is_listed_whole(clerk: Alone, root: Path) -> None:
    names = {f"{'n' * 200}{number}".encode() for number in range(3000)}
    for name in names:
        (root / os.fsdecode(name)).touch()
    assert clerk.names(b"/").keys() == names
    assert len(clerk.glob(b"/*")) > 2000
    clerk.ask(FilesOp.MKDIR, b"/sub", mode=0o755)


def test_a_file_appears_whole_or_not_at_all(clerk: Alone, root: Path) -> None:
    clerk.put(b"/file", b"old")
    reader, writer = os.pipe()
    clerk.ask(FilesOp.PUT, b"/file", flags=FilesFlag.REPLACE, mode=0o644)
    clerk.ask(FilesOp.FILL, fds=(reader,))
    os.close(reader)
    os.write(writer, b"half")
    os.close(writer)
    clerk.ask(FilesOp.DONE)
    with pytest.raises(Refusal) as refused:
        clerk.ask(FilesOp.COMMIT, numbers=(8, 0))
    assert refused.value.why is R.SHORT
    assert (root / "file").read_bytes() == b"old"


def test_what_was_not_finished_is_gone(program: Path, root: Path) -> None:
    with Alone(program, root) as clerk:
        clerk.ask(FilesOp.PUT, b"/file", mode=0o644)
        assert len(os.listdir(root)) == 1
    assert os.listdir(root) == []


def test_without_replace_nothing_is(clerk: Alone, root: Path) -> None:
    clerk.put(b"/file", b"old")
    clerk.put(b"/other", b"old")
    asks: tuple[Callable[[], object], ...] = (
        lambda: clerk.put(b"/file", b"new", flags=NO_FLAGS),
        lambda: clerk.ask(FilesOp.MOVE, b"/other", b"/file"),
        lambda: clerk.ask(FilesOp.MKDIR, b"/file", mode=0o755),
    )
    for ask in asks:
        with pytest.raises(Refusal) as refused:
            ask()
        assert refused.value.why is R.EXISTS
    assert (root / "file").read_bytes() == b"old"


def test_a_full_directory_goes_only_with_what_is_in_it(clerk: Alone, root: Path) -> None:
    clerk.put(b"/a/b/file", flags=FilesFlag.PARENTS)
    with pytest.raises(Refusal) as refused:
        clerk.remove(b"/a")
    assert refused.value.why is R.EXISTS
    clerk.remove(b"/a", recursive=True)
    assert os.listdir(root) == []


def test_a_directory_that_takes_no_names_lets_its_files_be_written(clerk: Alone, root: Path) -> None:
    (root / "d").mkdir(mode=0o755)
    (root / "d" / "file").write_bytes(b"a longer one than what comes")
    os.chown(root / "d" / "file", OWNER, OWNER)
    answer, came = clerk.open(FilesOp.PUT, b"/d/file", flags=FilesFlag.REPLACE, mode=0o644)
    for fd in came:
        os.close(fd)
    assert FilesFlag.IN_PLACE in answer.flags
    clerk.put(b"/d/file", b"short")
    assert (root / "d" / "file").read_bytes() == b"short"


def test_memory_that_is_not_there_is_refused_before_it_is_written(clerk: Alone) -> None:
    clerk.ask(FilesOp.PUT, b"/file", mode=0o644)
    with pytest.raises(Refusal):
        clerk.ask(FilesOp.RESERVE, numbers=(0, 1 << 60))


def test_what_is_reserved_and_not_written_goes(clerk: Alone, root: Path) -> None:
    _, came = clerk.open(FilesOp.PUT, b"/file", mode=0o644)
    clerk.ask(FilesOp.RESERVE, numbers=(0, 1 << 20))
    os.pwrite(came[0], b"content", 0)
    os.close(came[0])
    clerk.ask(FilesOp.COMMIT, numbers=(7, 0))
    st = (root / "file").stat()
    assert (st.st_size, st.st_blocks) == (7, 8)


def test_a_file_system_that_never_answers_holds_its_own_clerk_alone(program: Path, root: Path) -> None:
    place = root / "fuse"
    place.mkdir()
    mount = UnansweringMount(place, uid=OWNER)
    with ExitStack() as until_answered:
        until_answered.enter_context(mount)
        with Alone(program, root) as held, Alone(program, root) as other:
            held.patience(1.0)
            with pytest.raises(TimeoutError):
                held.names(b"/fuse")
            other.put(b"/file", b"served")
            assert other.get(b"/file") == b"served"
            until_answered.close()  # the mount's end is the end of the wait


@pytest.mark.parametrize("seed", range(20))
def test_noise_for_questions(clerk: Alone, seed: int) -> None:
    """Its one talker is the broker; a packet that is none is answered so all the same."""
    op = FilesOp.STAT
    packet = random.Random(seed).randbytes(16 + seed * 40)
    packet = int(op).to_bytes(4, "little") + len(packet).to_bytes(4, "little") + packet[8:]
    answer, came = clerk.exchange(packet, op)
    for fd in came:
        os.close(fd)
    assert answer.refusal is R.ORDER
    assert clerk.names(b"/") == {}


@pytest.mark.parametrize("op", [FilesOp.COMMIT, FilesOp.RESERVE])
def test_questions_out_of_turn(clerk: Alone, op: FilesOp) -> None:
    with pytest.raises(Refusal) as refused:
        clerk.ask(op, numbers=(0, 1))
    assert refused.value.why is R.ORDER


@pytest.mark.parametrize("op", [FilesOp.POUR, FilesOp.FILL, FilesOp.ARCHIVE, FilesOp.EXTRACT])
def test_a_flow_without_a_pipe(clerk: Alone, op: FilesOp) -> None:
    with pytest.raises(Refusal) as refused:
        clerk.ask(op, b"/")
    assert refused.value.why is R.ORDER


def test_control_tar_of_holds_what_it_says() -> None:
    with tarfile.open(fileobj=io.BytesIO(tar_of(("x", b"y")))) as archive:
        assert archive.extractfile("x").read() == b"y"  # type: ignore[union-attr]
