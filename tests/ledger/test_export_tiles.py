"""Tiles: what tlog-tiles says of their names and content, resumed anywhere, and refused where they are not right."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immured.ledger.checkpoint import open_checkpoint
from immured.ledger.entry import leaf_hash
from immured.ledger.exports.directory import Directory
from immured.ledger.exports.head import ExportError, folder_of
from immured.ledger.exports.tiles import Edge, TileCopy, bundle_of, lines_of, tile_path
from immured.ledger.keys import load_vkeys
from immured.ledger.tree import Frontier
from tests.ledger.copies import VKEYS, Original


@pytest.fixture
def original(tmp_path: Path) -> Original:
    return Original(tmp_path / "state")


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    place = tmp_path / "audit"
    place.mkdir(mode=0o755)
    return place


def tiled(original: Original, audit: Path, *, begun: bool) -> None:
    """By one that has seen nothing yet, as after a start."""
    with original.files() as files:
        TileCopy(files, Directory(audit, folder_of(original.origin))).catch_up(original.head, VKEYS, begun=begun)


def whole(folder: Path, size: int) -> list[bytes]:
    """Every line, as a reader of tiles gets them."""
    lines: list[bytes] = []
    for index in range((size + 255) // 256):
        width = min(256, size - 256 * index)
        lines += lines_of((folder / tile_path("entries", index, width)).read_bytes())
    return lines


@pytest.mark.parametrize(
    ("index", "width", "path"),
    [
        (0, 256, "tile/0/000"),
        (273, 7, "tile/0/273.p/7"),
        (1234067, 256, "tile/0/x001/x234/067"),  # the specification's own example
        (1000, 1, "tile/0/x001/000.p/1"),
    ],
)
def test_names_are_those_of_the_specification(index: int, width: int, path: str) -> None:
    assert tile_path(0, index, width) == path


@settings(max_examples=60, deadline=None)
@given(size=st.one_of(st.integers(1, 3000), st.sampled_from([255, 256, 257, 65_535, 65_536, 65_537])))
def test_the_edge_gives_the_root_and_can_be_taken_up_again(size: int) -> None:
    leaves = [leaf_hash(number.to_bytes(4, "big")) for number in range(size)]
    edge, tiles = Edge(), dict[str, bytes]()
    for leaf in leaves:
        for level, index, data in edge.add(leaf):
            tiles[tile_path(level, index)] = data
    for level, index, data in edge.partial():
        tiles[tile_path(level, index, len(data) // 32)] = data
    assert edge.root() == Frontier(leaves).root()
    again = Edge.at(size, lambda level, index, width: tiles[tile_path(level, index, width)])
    assert (again.root(), again.levels[: len(edge.levels)]) == (edge.root(), edge.levels)
    assert b"".join(tiles[tile_path(0, index)] for index in range(size // 256)) == b"".join(leaves[: size // 256 * 256])


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_a_bundle_gives_its_lines_back(lines: list[bytes]) -> None:
    assert lines_of(bundle_of(lines)) == lines


@given(st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=5), st.data())
def test_a_bundle_that_is_cut_is_none(lines: list[bytes], data: st.DataObject) -> None:
    bundle = bundle_of(lines)
    cut = data.draw(st.integers(1, len(bundle) - 1))
    ends = {len(bundle_of(lines[:number])) for number in range(len(lines) + 1)}
    if cut in ends:
        assert lines_of(bundle[:cut]) == lines[: sorted(ends).index(cut)]
    else:
        with pytest.raises(ValueError, match="within its entry"):
            lines_of(bundle[:cut])


def test_tiles_are_the_ledger_after_every_step(original: Original, audit: Path) -> None:
    folder, begun = original.folder(audit), False
    for more in (0, 1, 250, 3, 600, 255):
        original.grow(more)
        tiled(original, audit, begun=begun)
        begun = True
        keys = load_vkeys(original.place / "keys/ledger.vkey")
        head = open_checkpoint((folder / "checkpoint").read_bytes(), keys)
        lines = whole(folder, head.size)
        assert (head.size, b"".join(line + b"\n" for line in lines)) == (original.head.size, original.log)
        assert Frontier(map(leaf_hash, lines)).root() == head.root


def test_one_that_goes_on_writes_only_what_is_new(original: Original, audit: Path) -> None:
    original.grow(700)
    with original.files() as files:
        copy = TileCopy(files, Directory(audit, folder_of(original.origin)))
        copy.catch_up(original.head, VKEYS, begun=False)
        full = original.folder(audit) / tile_path("entries", 0)
        before = full.stat()
        copy.catch_up(original.grow(10), VKEYS, begun=True)
    assert (full.stat().st_ino, full.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("what", ["tile/0/000.p/200", "tile/entries/000.p/200", "checkpoint"])
def test_what_was_altered_at_its_end_is_found_and_left(original: Original, audit: Path, what: str) -> None:
    original.grow(200 - original.head.size - 2)
    while original.head.size < 200:
        original.grow(1)
    tiled(original, audit, begun=False)
    folder = original.folder(audit)
    what = what.replace("200", str(original.head.size))
    data = bytearray((folder / what).read_bytes())
    data[50] ^= 1
    (folder / what).write_bytes(data)
    original.grow(1)
    with pytest.raises(ExportError) as refused:
        tiled(original, audit, begun=True)
    assert refused.value.code == "export_differs"
    assert (folder / what).read_bytes() == data


def test_an_older_ledger_is_not_put_behind_a_newer_ones_tiles(original: Original, audit: Path) -> None:
    older = original.head
    original.grow(20)
    tiled(original, audit, begun=False)
    original.head = older
    with pytest.raises(ExportError) as refused:
        tiled(original, audit, begun=True)
    assert refused.value.code == "export_ahead"


def test_tiles_that_are_gone_are_missed(original: Original, audit: Path) -> None:
    tiled(original, audit, begun=False)
    (original.folder(audit) / "checkpoint").unlink()
    original.grow(1)
    with pytest.raises(ExportError) as refused:
        tiled(original, audit, begun=True)
    assert refused.value.code == "export_missing"


def test_an_attempt_that_did_not_end_is_gone_over(original: Original, audit: Path) -> None:
    tiled(original, audit, begun=False)
    original.grow(300)
    folder = original.folder(audit)
    (folder / "tile/entries").mkdir(parents=True, exist_ok=True)
    (folder / tile_path("entries", 0)).write_bytes(b"half of")
    tiled(original, audit, begun=True)
    assert b"".join(line + b"\n" for line in whole(folder, original.head.size)) == original.log
    assert not [name for name in os.listdir(folder / "tile/entries") if name.startswith(".")]


class Cut(OSError):
    """The process, or what holds the copy, is gone."""


class Shelf:
    """One that is gone after so many calls that change something: before the call is done, or after."""

    def __init__(self, files: dict[str, bytes], calls: int, *, done: bool) -> None:
        self.files, self.left, self.done = files, calls, done

    def attach(self, *, begun: bool) -> None:
        pass

    def detach(self) -> None:
        pass

    def probe(self) -> None:
        pass

    def put(self, name: str, data: bytes) -> None:
        self.left -= 1
        if self.left == 0 and not self.done:
            raise Cut
        self.files[name] = data
        if self.left == 0:
            raise Cut

    def get(self, name: str) -> bytes | None:
        return self.files.get(name)


@pytest.mark.parametrize("done", [False, True])
def test_wherever_it_is_cut_off_the_next_attempt_ends_it(original: Original, done: bool) -> None:
    with original.files() as files:
        begun: dict[str, bytes] = {}
        TileCopy(files, Shelf(begun, -1, done=done)).catch_up(original.head, VKEYS, begun=False)
        original.grow(600)
        whole = dict(begun)
        TileCopy(files, Shelf(whole, -1, done=done)).catch_up(original.head, VKEYS, begun=True)
        cut, calls = True, 0
        while cut:
            calls, cut = calls + 1, False
            there = dict(begun)
            try:
                TileCopy(files, Shelf(there, calls, done=done)).catch_up(original.head, VKEYS, begun=True)
            except Cut:
                cut = True
                # What its checkpoint signs is there at any time.
                size = int(there["checkpoint"].split(b"\n")[1])
                assert tile_path(0, size // 256, size % 256) in there
            TileCopy(files, Shelf(there, -1, done=done)).catch_up(original.head, VKEYS, begun=True)
            assert there == whole
    assert calls > 8
