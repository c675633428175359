"""The stored hashes: what proofs are made of, whatever befalls the files."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest

from immured._ledger_read import parents
from immured.ledger.entry import leaf_hash
from immured.ledger.merkle import is_consistent, is_included
from immured.ledger.tree import Frontier, node_hash
from immured.ledger.tree_store import First, NotStored, TreeDirectory, TreeInMemory, TreeReader, TreeStore, Until
from tests.ledger.memory import Bytes

LINES = [f"line {n} {'x' * (n % 7)}\n".encode() for n in range(700)]
LEAVES = [leaf_hash(line[:-1]) for line in LINES]
STREAM = Bytes(b"".join(LINES))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 64, 701])
def test_the_nodes_above_are_hashed_in_c_as_in_python(count: int) -> None:
    hashes = (LEAVES * 2)[:count]
    above = [node_hash(*hashes[at : at + 2]) for at in range(0, count - 1, 2)]
    assert parents(b"".join(hashes)) == b"".join(above)


def test_no_half_hash_has_a_node_above() -> None:
    with pytest.raises(ValueError, match="32 bytes each"):
        parents(bytes(33))


def end(size: int) -> int:
    return sum(map(len, LINES[:size]))


def root(size: int) -> bytes:
    return Frontier(LEAVES[:size]).root()


def until(size: int) -> Until:
    return Until(size, end(size), root(size))


def fill(store: TreeStore, start: int, stop: int, step: int = 1) -> None:
    for at in range(start, stop, step):
        upto = min(at + step, stop)
        store.extend(b"".join(LEAVES[at:upto]), end(upto))


def made(size: int, files: TreeInMemory | TreeDirectory | None = None) -> TreeStore:
    store = TreeStore(files or TreeInMemory())
    assert store.begin(0, root(0), 0)
    fill(store, 0, size)
    store.flush()
    return store


def assert_whole(store: TreeReader, size: int, first: int = 0) -> None:
    assert store.size == size
    for old in range(max(first, 1), size + 1, 37):
        assert store.root(old) == root(old)
        path = store.consistency(old, size)
        assert is_consistent(old, root(old), size, root(size), path)
    for seq in range(first, size, 29):
        assert is_included(LEAVES[seq], seq, size, store.inclusion(seq, size), root(size))
        near, offset = store.place(seq)
        assert near <= seq
        assert offset == end(near) or (near, offset) == (0, 0)


@pytest.mark.parametrize("size", [1, 2, 3, 63, 64, 65, 127, 128, 700])
@pytest.mark.parametrize("step", [1, 7, 700])
def test_proofs_of_what_was_extended_and_flushed(size: int, step: int) -> None:
    store = TreeStore(TreeInMemory())
    assert store.begin(0, root(0), 0)
    fill(store, 0, size, step)
    assert store.size == 0
    store.flush()
    assert_whole(store, size)


def test_flushing_often_or_once_is_the_same() -> None:
    often, once = TreeInMemory(), TreeInMemory()
    made(700, once)
    store, chance, at = TreeStore(often), random.Random(1), 0
    store.begin(0, root(0), 0)
    while at < 700:
        upto = min(700, at + chance.randint(1, 40))
        fill(store, at, upto)
        store.flush()
        at = upto
    assert_whole(store, 700)
    assert [often.read(f"{n:02d}", 0, 1 << 20) for n in range(12)] == [
        once.read(f"{n:02d}", 0, 1 << 20) for n in range(12)
    ]


def test_a_place_is_near() -> None:
    store = made(700)
    for seq in range(700):
        near, offset = store.place(seq)
        assert seq - 64 <= near <= seq
        assert offset == end(near)


def test_another_process_reads_the_directory(tmp_path: Path) -> None:
    made(300, TreeDirectory(tmp_path / "tree", writable=True))
    reader = TreeDirectory(tmp_path / "tree")
    assert_whole(TreeReader(reader), 300)
    reader.close()
    fd = os.open(tmp_path / "tree", os.O_RDONLY)
    try:
        by_descriptor = TreeDirectory(fd)
        assert_whole(TreeReader(by_descriptor), 300)
        by_descriptor.close()
    finally:
        os.close(fd)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "tree").iterdir()} == {0o600}


def test_a_reader_makes_nothing(tmp_path: Path) -> None:
    files = TreeDirectory(tmp_path / "tree")
    assert TreeReader(files).size == 0
    assert not (tmp_path / "tree").exists()


def test_what_is_not_there_is_said() -> None:
    store = made(10)
    with pytest.raises(NotStored, match="no hash 10 at level 0"):
        store.inclusion(3, 11)
    with pytest.raises(ValueError, match="has no leaf 10"):
        store.inclusion(10, 10)
    with pytest.raises(NotStored):
        store.consistency(3, 16)


# --- beginning with what the files hold


def test_it_goes_on_where_it_was() -> None:
    files = TreeInMemory()
    made(300, files)
    again = TreeStore(files)
    assert again.begin(300, root(300), 300)
    fill(again, 300, 411)
    again.flush()
    assert_whole(again, 411)


def test_what_is_beyond_the_checkpoint_is_dropped() -> None:
    files = TreeInMemory()
    made(300, files)
    again = TreeStore(files)
    assert not again.begin(277, root(277), 280)
    assert again.size == 277
    assert again.catch_up(STREAM, First(), until(280))
    fill(again, 280, 290)
    again.flush()
    assert_whole(again, 290)


@pytest.mark.parametrize("kept", [0, 1, 200, 299])
def test_what_is_missing_is_read_from_the_lines(kept: int) -> None:
    files = TreeInMemory()
    made(kept, files)
    again = TreeStore(files)
    assert not again.begin(300, root(300), 350)
    fill(again, 350, 360)  # entries that come meanwhile
    assert again.catch_up(STREAM, First(), until(350))
    assert not again.behind
    assert_whole(again, 360)


@pytest.mark.parametrize("level", range(9))
@pytest.mark.parametrize("kind", ["zeros", "flip", "cut", "gone"])
def test_any_damage_is_made_good(level: int, kind: str) -> None:
    files = TreeInMemory()
    made(300, files)
    name = f"{level:02d}"
    size = files.size(name)
    if kind == "zeros":
        files.write(name, size - 32, bytes(32))
    elif kind == "flip":
        files.write(name, size - 1, bytes([files.read(name, size - 1, 1)[0] ^ 1]))
    else:
        files.cut(name, size - 32 if kind == "cut" else 0)
    again = TreeStore(files)
    if not again.begin(300, root(300), 300):
        assert again.catch_up(STREAM, First(), until(300))
        assert_whole(again, 300)
        return
    # What the root does not stand on was not looked at: proofs of it are wrong, and then all is made anew.
    again.restart(300)
    assert again.catch_up(STREAM, First(), until(300))
    assert_whole(again, 300)


def test_random_bytes_for_files_are_made_good() -> None:
    chance = random.Random(7)
    for _ in range(50):
        files = TreeInMemory()
        made(200, files)
        for name in ("ends", *(f"{n:02d}" for n in range(8))):
            if chance.random() < 0.5:
                files.write(name, 0, chance.randbytes(chance.randint(0, files.size(name) + 90)))
        again = TreeStore(files)
        if not again.begin(200, root(200), 200) and not again.catch_up(STREAM, First(), until(200)):
            pytest.fail(again.failure)
        again.restart(200)
        assert again.catch_up(STREAM, First(), until(200))
        assert_whole(again, 200)


def test_lines_with_another_root_are_not_taken() -> None:
    store = TreeStore(TreeInMemory())
    assert not store.begin(300, root(300), 300)
    assert not store.catch_up(STREAM, First(), Until(300, end(300), root(299)))
    assert store.behind
    assert "not theirs" in store.failure


def test_too_few_lines_are_not_taken() -> None:
    store = TreeStore(TreeInMemory())
    assert not store.begin(300, root(300), 300)
    assert not store.catch_up(Bytes(b"".join(LINES[:200])), First(), until(300))
    assert store.behind


def test_it_can_be_halted() -> None:
    store = TreeStore(TreeInMemory())
    store.begin(300, root(300), 300)
    assert not store.catch_up(STREAM, First(), until(300), lambda: True)
    assert store.behind


# --- lines that are gone


@pytest.mark.parametrize("first", [1, 2, 3, 64, 100, 255, 256, 257, 299])
def test_lines_that_are_gone_are_not_needed_for_the_rest(first: int) -> None:
    kept = First(first, end(first), Frontier(LEAVES[:first]).roots())

    class Kept(Bytes):
        def read(self, offset: int, length: int) -> bytes:
            assert offset >= kept.offset, "these lines are gone"
            return super().read(offset, length)

    store = TreeStore(TreeInMemory())
    assert not store.begin(300, root(300), 300)
    assert store.catch_up(Kept(b"".join(LINES)), kept, until(300)), store.failure
    assert_whole(store, 300, first)
    fill(store, 300, 400)
    store.flush()
    assert_whole(store, 400, first)
    if first > 1:
        with pytest.raises(NotStored, match="gone"):
            store.inclusion(0, 400)


# --- a disk that does not do as asked


class Failing(TreeInMemory):
    """Writes only while `room` writes are left."""

    room = 1 << 30

    def write(self, name: str, offset: int, data: bytes) -> None:
        self.room -= 1
        if self.room < 0:
            super().write(name, offset, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(name, offset, data)


@pytest.mark.parametrize("room", range(14))
def test_what_was_not_written_is_written_later(room: int) -> None:
    files = Failing()
    store = TreeStore(files)
    store.begin(0, root(0), 0)
    fill(store, 0, 200)
    store.flush()
    files.room = room
    fill(store, 200, 300)
    store.flush()
    if store.failure:
        assert store.size == 200
        assert_whole(store, 200)
    files.room = 1 << 30
    fill(store, 300, 310)
    store.flush()
    assert store.failure == ""
    assert_whole(store, 310)


@pytest.mark.parametrize("room", range(14))
def test_a_kill_within_a_write_is_made_good(room: int) -> None:
    files = Failing()
    store = TreeStore(files)
    store.begin(0, root(0), 0)
    fill(store, 0, 200)
    store.flush()
    files.room = room
    fill(store, 200, 300)
    store.flush()
    files.room = 1 << 30
    again = TreeStore(files)
    if not again.begin(300, root(300), 300):
        assert again.catch_up(STREAM, First(), until(300)), again.failure
    assert_whole(again, 300)


def test_what_waits_is_bounded() -> None:
    store = TreeStore(TreeInMemory())
    store.begin(1, root(1), 1)
    piece = bytes(32) * 65_536
    for _ in range(20):
        store.extend(piece, 0)
    assert store.overrun
    assert store.size == 0
    store.restart(300)
    assert store.catch_up(STREAM, First(), until(300))
    assert_whole(store, 300)
    fill(store, 300, 310)
    store.flush()
    assert_whole(store, 310)
