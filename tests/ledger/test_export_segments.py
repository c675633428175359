"""Copies of a ledger that is sealed into files, and whose oldest files are removed: the stream is what is copied."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from immured.ledger import Ledger, create
from immured.ledger.checkpoint import Checkpoint, unverified
from immured.ledger.exports.compare import Heads, compare
from immured.ledger.exports.copy import Copy
from immured.ledger.exports.directory import Directory
from immured.ledger.exports.head import ExportError, Head, folder_of
from immured.ledger.exports.now import Ledgered, export_now
from immured.ledger.exports.place import Place
from immured.ledger.exports.source import LedgerFiles
from immured.ledger.exports.tiles import TileCopy, lines_of, tile_path
from immured.ledger.keys import load_vkeys
from immured.ledger.retention import CannotRetire
from immured.ledger.rotation import Limits
from immured.ledger.segments import Files
from immured.ledger.verify import verify_file
from tests.ledger.copies import VKEYS
from tests.ledger.test_retention import Folding
from tests.patience import PATIENCE_S

ACTOR = {"key": "ed25519:" + "1" * 32}
SMALL = Limits(size=20_000)


class Sealed:
    """A real ledger with small segments."""

    def __init__(self, place: Path) -> None:
        self.place = place
        create(place, "ed25519:" + "0" * 32)
        self.head = self.grow(300)

    def grow(self, entries: int, *, retired: int | None = None) -> Head:
        """So many more; and of what is sealed by then, all below `retired` removed."""
        with Ledger.open(self.place, limits=SMALL, keeper=Folding()) as ledger:
            for number in range(entries):
                ledger.entry("command.denied", ACTOR, {"number": number, "message": "x" * 50}).wait()
                self._until_sealed()
            self.origin = ledger.origin
            if retired is not None:
                with contextlib.suppress(CannotRetire):  # what lies above is in no copy
                    ledger.retire(time.time_ns(), retired)
        assert ledger.head is not None
        self.head = ledger.head
        return self.head

    def _until_sealed(self) -> None:
        """A file that is long enough is sealed when its digest is there, which nobody else waits for."""
        written, deadline = self.place / "ledger/current.jsonl", time.monotonic() + PATIENCE_S

        def is_long() -> bool:
            try:
                return written.stat().st_size > SMALL.size + 1_000
            except FileNotFoundError:  # between two names
                return True

        while is_long():
            assert time.monotonic() < deadline
            time.sleep(0.002)

    @property
    def stream(self) -> bytes:
        with Files.open(self.place / "ledger") as files:
            return files.read(files.start, files.size())

    @property
    def start(self) -> int:
        with Files.open(self.place / "ledger") as files:
            return files.start

    @contextlib.contextmanager
    def source(self) -> Iterator[LedgerFiles]:
        fd = os.open(self.place / "ledger", os.O_RDONLY | os.O_DIRECTORY)
        source = LedgerFiles(fd)
        try:
            yield source
        finally:
            source.close()
            os.close(fd)

    def folder(self, audit: Path) -> Path:
        return audit / folder_of(self.origin)


@pytest.fixture
def sealed(tmp_path: Path) -> Sealed:
    return Sealed(tmp_path / "state")


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    place = tmp_path / "audit"
    place.mkdir(mode=0o755)
    return place


def copied(sealed: Sealed, audit: Path, *, begun: bool = False) -> None:
    with sealed.source() as source:
        Copy(source, Directory(audit, folder_of(sealed.origin))).catch_up(sealed.head, VKEYS, begun=begun)


def test_a_copy_is_the_whole_stream_in_one_file(sealed: Sealed, audit: Path) -> None:
    with Files.open(sealed.place / "ledger") as files:
        assert len(files.parts) > 2
    copied(sealed, audit)
    copy = sealed.folder(audit)
    assert (copy / "current.jsonl").read_bytes() == sealed.stream
    report = verify_file(copy / "current.jsonl", copy / "checkpoints", load_vkeys(sealed.place / "keys/ledger.vkey"))
    assert (report.whole, report.covered) == (True, sealed.head.size)


def test_one_that_goes_on_follows_whatever_is_sealed_meanwhile(sealed: Sealed, audit: Path) -> None:
    with sealed.source() as source:
        copy = Copy(source, Directory(audit, folder_of(sealed.origin)))
        tiles = TileCopy(source, Directory(audit, folder_of(sealed.origin)))
        for number in range(4):
            copy.catch_up(sealed.head, VKEYS, begun=number > 0)
            tiles.catch_up(sealed.head, VKEYS, begun=number > 0)
            sealed.grow(130)
    copied(sealed, audit, begun=True)
    assert (sealed.folder(audit) / "current.jsonl").read_bytes() == sealed.stream
    bundle = lines_of((sealed.folder(audit) / tile_path("entries", 1)).read_bytes())
    assert bundle == sealed.stream.splitlines()[256:512]


def test_a_copy_keeps_what_the_ledger_removed(sealed: Sealed, audit: Path) -> None:
    copied(sealed, audit)
    before = sealed.stream
    sealed.grow(50, retired=sealed.head.size)
    assert sealed.start > 0
    copied(sealed, audit, begun=True)
    held = (sealed.folder(audit) / "current.jsonl").read_bytes()
    assert held.startswith(before)
    assert held[sealed.start :] == sealed.stream
    copy = sealed.folder(audit)
    report = verify_file(copy / "current.jsonl", copy / "checkpoints", load_vkeys(sealed.place / "keys/ledger.vkey"))
    assert (report.whole, report.covered) == (True, sealed.head.size)


def test_a_copy_that_is_begun_later_begins_where_the_ledger_does(sealed: Sealed, audit: Path) -> None:
    sealed.grow(50, retired=sealed.head.size)
    copied(sealed, audit)
    sealed.grow(100)
    copied(sealed, audit, begun=True)
    assert (sealed.folder(audit) / "current.jsonl").read_bytes() == sealed.stream
    assert sealed.start > 0


def test_tiles_hold_what_the_ledger_removed_and_are_not_begun_without_it(sealed: Sealed, audit: Path) -> None:
    with sealed.source() as source:
        TileCopy(source, Directory(audit, folder_of(sealed.origin))).catch_up(sealed.head, VKEYS, begun=False)
    before = sealed.stream.splitlines()
    sealed.grow(50, retired=sealed.head.size)
    with sealed.source() as source:
        TileCopy(source, Directory(audit, folder_of(sealed.origin))).catch_up(sealed.head, VKEYS, begun=True)
        assert lines_of((sealed.folder(audit) / tile_path("entries", 0)).read_bytes()) == before[:256]
        (audit / "late").mkdir(mode=0o755)
        with pytest.raises(ExportError) as refused:
            TileCopy(source, Directory(audit / "late", folder_of(sealed.origin))).catch_up(
                sealed.head, VKEYS, begun=False
            )
    assert refused.value.code == "export_source"


def test_an_export_on_demand_finds_where_the_signed_part_ends(sealed: Sealed, audit: Path) -> None:
    sealed.grow(10, retired=200)
    done, origin = export_now(Ledgered.of_state(sealed.place), Place(str(audit)))
    assert (done.entries, origin) == (sealed.head.size, sealed.origin)
    assert (sealed.folder(audit) / "current.jsonl").read_bytes() == sealed.stream
    again, _ = export_now(Ledgered.of_copy(sealed.folder(audit)), Place(str(audit / "..")))
    assert again.entries == sealed.head.size


@pytest.mark.needs_root
def test_what_root_exports_belongs_to_whom_the_folder_does(sealed: Sealed, audit: Path) -> None:
    os.chown(audit, 64_321, 64_321)
    with sealed.source() as source:
        TileCopy(source, Directory(audit, folder_of(sealed.origin))).catch_up(sealed.head, VKEYS, begun=False)
    copied(sealed, audit, begun=False)
    owners = {
        (Path(above) / name).stat().st_uid for above, folders, files in os.walk(audit) for name in folders + files
    }
    assert owners == {64_321}


def test_heads_of_what_is_kept_are_compared_and_those_of_what_was_retired_are_said_to_be_gone(tmp_path: Path) -> None:
    sealed = Sealed(tmp_path)
    sealed.grow(40, retired=200)
    heads = [unverified(path.read_bytes()) for path in sorted((tmp_path / "ledger/checkpoints").iterdir())]

    def verdict(head: Checkpoint) -> str:
        with Files.open(tmp_path / "ledger") as files:
            return compare(files, head.origin, Heads(head, "kept")).verdict

    with Files.open(tmp_path / "ledger") as files:
        first = files.first
    assert first > 1
    assert [verdict(head) for head in heads] == [
        "unknown" if head.size < first else "older" if head.size < heads[-1].size else "same" for head in heads
    ]
    assert {verdict(head) for head in heads} == {"unknown", "older", "same"}
    newest = heads[-1]
    assert verdict(Checkpoint(newest.origin, newest.size, bytes(32))) == "forked"
    assert verdict(Checkpoint(newest.origin, newest.size + 1, newest.root)) == "newer"
