"""An open ledger stores its tree's hashes as it goes, and makes good what is missing."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from immured.ledger import Ledger, create
from immured.ledger.merkle import is_included
from immured.ledger.segments import Files
from immured.ledger.tree_keeper import TreeKeeper, first_kept
from immured.ledger.tree_store import TreeDirectory, TreeReader
from immured.ledger.verify import verify_file
from tests.ledger.sample import ACTOR, DAEMON, laid_out, rotated_lines
from tests.patience import PATIENCE_S, until


@pytest.fixture
def state(tmp_path: Path) -> Path:
    create(tmp_path / "state", DAEMON)
    return tmp_path / "state"


def append(ledger: Ledger, count: int) -> None:
    for _ in range(count):
        ledger.entry("run.accepted", ACTOR, {"argv": ["/bin/true"]}, unhurried=True)
    ledger.flush()
    ledger.entry("run.finished", ACTOR, {}).wait(PATIENCE_S)


def keeper(ledger: Ledger) -> TreeKeeper:
    assert ledger.tree is not None
    return ledger.tree


def caught_up(ledger: Ledger) -> None:
    end = time.monotonic() + PATIENCE_S
    while keeper(ledger).store.behind:
        assert time.monotonic() < end, keeper(ledger).store.failure
        time.sleep(0.005)


def assert_proves(state: Path, entries: int) -> None:
    """Every entry is proven from the files, by the root that verification finds."""
    files = TreeDirectory(state / "ledger" / "tree")
    store = TreeReader(files)
    leaves: list[bytes] = []
    report = verify_file(state / "ledger" / "current.jsonl", visit=lambda entry: leaves.append(entry.leaf))
    assert (store.size, len(leaves)) == (entries, entries)
    for seq, leaf in enumerate(leaves):
        assert is_included(leaf, seq, entries, store.inclusion(seq, entries), bytes.fromhex(report.root))
    files.close()


def test_closing_stores_all(state: Path) -> None:
    with Ledger.open(state) as ledger:
        append(ledger, 99)
    assert_proves(state, 101)


def test_a_little_is_caught_up_with_before_it_is_open(state: Path) -> None:
    with Ledger.open(state) as ledger:
        assert not keeper(ledger).store.behind
        assert keeper(ledger).store.size == 1  # what made the ledger stored no tree
    shutil.rmtree(state / "ledger" / "tree")
    with Ledger.open(state) as ledger:
        assert not keeper(ledger).store.behind


def test_it_goes_on_after_a_restart(state: Path) -> None:
    for _ in range(3):
        with Ledger.open(state) as ledger:
            assert not keeper(ledger).store.behind
            append(ledger, 49)
    assert_proves(state, 151)


def test_a_ledger_without_one_gets_it(state: Path) -> None:
    with Ledger.open(state) as ledger:
        append(ledger, 999)
    shutil.rmtree(state / "ledger" / "tree")
    with Ledger.open(state) as ledger:
        append(ledger, 9)
        caught_up(ledger)
    assert_proves(state, 1011)


def test_one_that_lacks_the_last_entries_catches_up(state: Path) -> None:
    with Ledger.open(state) as ledger:
        append(ledger, 99)
    shutil.copytree(state / "ledger" / "tree", state / "earlier")
    with Ledger.open(state) as ledger:
        append(ledger, 99)
    shutil.rmtree(state / "ledger" / "tree")
    (state / "earlier").rename(state / "ledger" / "tree")
    with Ledger.open(state) as ledger:
        caught_up(ledger)
    assert_proves(state, 201)


def test_what_no_checkpoint_covers_yet_is_caught_up_with(state: Path) -> None:
    with Ledger.open(state) as ledger:
        append(ledger, 99)
    (newest,) = sorted((state / "ledger" / "checkpoints").iterdir())[-1:]
    newest.unlink()
    with Ledger.open(state) as ledger:
        caught_up(ledger)
    assert_proves(state, 101)


def test_another_ledgers_tree_is_not_taken(state: Path, tmp_path: Path) -> None:
    create(tmp_path / "other", DAEMON)
    for one in (state, tmp_path / "other"):
        with Ledger.open(one) as ledger:
            append(ledger, 99)
    shutil.rmtree(state / "ledger" / "tree")
    shutil.copytree(tmp_path / "other" / "ledger" / "tree", state / "ledger" / "tree")
    with Ledger.open(state) as ledger:
        caught_up(ledger)
    assert_proves(state, 101)


def test_a_tree_that_cannot_be_kept_stops_no_entry(state: Path) -> None:
    (state / "ledger" / "tree").write_text("no directory")
    with Ledger.open(state) as ledger:
        append(ledger, 99)
        assert ledger.status().failure == ""
        assert keeper(ledger).store.failure
    assert verify_file(state / "ledger" / "current.jsonl").entries == 101


def test_one_found_wrong_is_made_anew_with_the_next_checkpoint(state: Path) -> None:
    with Ledger.open(state, checkpoint_seconds=0.01) as ledger:
        append(ledger, 99)
        (state / "ledger" / "tree" / "00").write_bytes(bytes(32 * 101))
        keeper(ledger).amiss()
        append(ledger, 1)

        def is_begun() -> bool:
            with ledger.turn():
                return not keeper(ledger)._amiss

        until(is_begun)
        caught_up(ledger)
    assert_proves(state, 103)


@pytest.mark.parametrize("counts", [(5, 4), (3, 6, 2), (8, 1, 7)])
def test_where_lines_are_gone_the_first_one_says_what_was_before(tmp_path: Path, counts: tuple[int, ...]) -> None:
    parts = rotated_lines(*counts)
    with Files.open(laid_out(tmp_path / "ledger", parts)) as files:
        assert first_kept(files).seq == 0
    kept = laid_out(tmp_path / "kept", parts[1:], counts[0])
    with Files.open(kept) as files:
        first = first_kept(files)
    assert (first.seq, len(first.frontier)) == (counts[0], counts[0].bit_count())
