"""A question has one answer: with an index, with a bad one, with none, and while the ledger grows or lets go."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from immured.ledger import query
from immured.ledger.entry import Entry
from immured.ledger.index import INDEX, Index
from immured.ledger.ledger import create
from immured.ledger.query import find, is_worth_it, newest
from immured.ledger.selection import Selection
from immured.ledger.show import BadLine, entries, follow
from tests.ledger.sample import ticking
from tests.ledger.test_index import SELECTIONS, STORY, write

ACME = Selection(tenant="acme")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    create(tmp_path, "ed25519:" + "d" * 32, clock=ticking())
    for _ in range(3):
        write(tmp_path, STORY * 4, size=4_000)
    return tmp_path


@pytest.fixture
def folder(state: Path) -> Path:
    return state / "ledger"


@pytest.fixture(autouse=True)
def _every_size_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "WORTH_IT", 0)


def seqs(found: Iterator[Entry] | list[Entry]) -> list[int]:
    return [one.seq for one in found]


@pytest.mark.parametrize("chosen", SELECTIONS)
def test_with_an_index_and_without(folder: Path, chosen: Selection) -> None:
    expected = seqs(entries(folder, chosen))
    assert seqs(find(folder, chosen, index=False)) == expected
    assert not (folder / INDEX).exists()
    assert seqs(find(folder, chosen)) == expected
    assert seqs(newest(folder, 3, chosen)) == expected[-3:]
    assert seqs(newest(folder, 3, chosen, index=False)) == expected[-3:]


def test_what_selects_nothing_and_what_is_one_file_needs_no_index(folder: Path) -> None:
    assert is_worth_it(folder, ACME)
    assert not is_worth_it(folder, Selection(first=3))
    assert not is_worth_it(folder / "current.jsonl", ACME)
    seqs(find(folder, Selection(first=3)))
    assert not (folder / INDEX).exists()


def test_what_is_small_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "WORTH_IT", 8 << 20)
    assert not is_worth_it(folder, ACME)


def test_lines_that_moved_under_it_are_found_where_they_are(folder: Path) -> None:
    """In the middle of an answer, too: nothing is shown twice, and nothing left out."""
    expected = seqs(entries(folder, ACME))
    with Index.open(folder) as index:
        assert index.catch_up() is None
    with sqlite3.connect(folder / INDEX) as altered:
        altered.execute("UPDATE entries SET offset = offset + 1 WHERE seq >= ?", (expected[len(expected) // 2],))
    assert seqs(find(folder, ACME)) == expected
    assert seqs(find(folder, ACME)) == expected


@pytest.mark.parametrize("statement", ["DROP TABLE place", "DROP TABLE entries", "DELETE FROM place"])
def test_a_table_that_is_gone_is_made_again(folder: Path, statement: str) -> None:
    expected = seqs(find(folder, ACME))
    with sqlite3.connect(folder / INDEX) as altered:
        altered.execute(statement)
    assert seqs(find(folder, ACME)) == expected == seqs(entries(folder, ACME))
    with Index.open(folder) as index:
        assert index.size > 0


@pytest.mark.parametrize("at", [100, 5_000, 9_000, 13_000, 20_000])
def test_pages_of_it_that_are_nonsense_are_no_answer(folder: Path, at: int) -> None:
    expected = seqs(find(folder, ACME))
    with (folder / INDEX).open("r+b") as file:
        file.seek(at)
        file.write(b"\xff" * 4_000)
    assert seqs(find(folder, ACME)) == expected


def test_one_that_somebody_holds_is_passed_over_and_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = seqs(find(folder, ACME))
    monkeypatch.setattr("immured.ledger.index._BUSY_S", 0.05)
    before = (folder / INDEX).stat().st_ino
    with sqlite3.connect(folder / INDEX) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert seqs(find(folder, ACME)) == expected
    assert (folder / INDEX).stat().st_ino == before


def test_a_link_in_its_place_is_not_followed(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "another"
    target.write_bytes(b"")
    (folder / INDEX).symlink_to(target)
    assert seqs(find(folder, ACME)) == seqs(entries(folder, ACME))
    assert target.read_bytes() == b""


def test_a_bad_line_is_said_as_without_an_index(folder: Path) -> None:
    seqs(find(folder, ACME))
    log = folder / "current.jsonl"
    log.write_bytes(log.read_bytes() + b"{}\n")
    with pytest.raises(BadLine, match=r"current\.jsonl line"):
        seqs(find(folder, ACME))


def test_whoever_asks_slowly_keeps_nobody_waiting(state: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("immured.ledger.index._BUSY_S", 0.05)
    monkeypatch.setattr("immured.ledger.index._PAGE", 2)
    slowly = find(folder, ACME)
    first = next(slowly)
    write(state, STORY)
    with Index.open(folder) as index:
        assert index.catch_up() is None
    assert [first.seq, *seqs(slowly)] == seqs(entries(folder, ACME))


@pytest.mark.needs_root
def test_it_is_its_directorys(folder: Path) -> None:
    os.chown(folder, 4_321, 4_321)
    seqs(find(folder, ACME))
    made = (folder / INDEX).stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o777) == (4_321, 4_321, 0o600)


def test_a_tenants_are_followed(state: Path, folder: Path) -> None:
    before = seqs(entries(folder))[-1]
    steps = iter([True, False])

    def pause() -> bool:
        write(state, [*STORY, ("run.finished", {"daemon": "d"}, {"sandbox": "s1", "intent": before + 2})])
        return next(steps)

    came = seqs(follow(folder, ACME, after=before, pause=pause))
    assert came == [seq for seq in seqs(entries(folder, ACME)) if before < seq][: len(came)] != []
