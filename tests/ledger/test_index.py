"""What an index finds is what reading every line finds, however it came to be."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immured.ledger.entry import Entry
from immured.ledger.index import INDEX, Index, StaleIndex
from immured.ledger.ledger import Ledger, create
from immured.ledger.rotation import Limits
from immured.ledger.selection import Selection
from immured.ledger.show import entries, last
from tests.ledger.sample import ticking

TENANTS = ("acme", "umbrella", "default")
KINDS = ("run.accepted", "run.finished", "exec.accepted", "command.denied", "key.added")
SELECTIONS = [
    Selection(),
    *(Selection(tenant=name) for name in (*TENANTS, "", "nobody")),
    *(Selection(types=(name,)) for name in (*KINDS, "run.*", "*.accepted", "none.*", "none.such")),
    *(Selection(actor=name) for name in ("alice", "1000", "acme", "operator", "4711", "nobody")),
    Selection(sandbox="s1"),
    Selection(sandbox="s1", tenant="acme"),
    Selection(first=5, end=9),
    Selection(since="2026-09-21T14:13:30", until="2026-09-21T14:13:36"),
    Selection(since="2026-09-21T14:13:31.00000"),
    Selection(until="2026-09-21T14:1"),
    Selection(since="tomorrow"),
    Selection(types=("run.*",), tenant="acme", actor="alice", first=3),
]


@st.composite
def told(draw: st.DrawFn) -> tuple[str, dict[str, object], dict[str, object]]:
    """One entry: of a caller or the daemon, about a sandbox or an earlier intent."""
    kind = draw(st.sampled_from(KINDS))
    tenant = draw(st.sampled_from(TENANTS))
    caller: dict[str, object] = {
        "key": "ed25519:" + "a" * 32, "name": draw(st.sampled_from(["alice", "bob"])), "uid": 1000,
        "pid": draw(st.integers(1, 9999)), "tenant": tenant, "roles": ["operator"],
    }  # fmt: skip
    actor: dict[str, object] = {"daemon": "ed25519:" + "d" * 32} if kind == "run.finished" else caller
    data: dict[str, object] = {"sandbox": draw(st.sampled_from(["s1", "s2", "s3", "s4"]))}
    if kind == "run.finished":
        data["intent"] = draw(st.integers(0, 30))
    return kind, actor, data


def write(state: Path, story: list[tuple[str, dict[str, object], dict[str, object]]], size: int = 1 << 40) -> None:
    with Ledger.open(state, clock=ticking(step_ns=10**9), limits=Limits(size, None)) as ledger:
        for one in story:
            ledger.entry(*one).wait()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    create(tmp_path, "ed25519:" + "d" * 32, clock=ticking())
    return tmp_path


@pytest.fixture
def folder(state: Path) -> Path:
    return state / "ledger"


def scanned(folder: Path, chosen: Selection) -> list[int]:
    return seqs(entries(folder, chosen))


def seqs(found: Iterator[Entry] | list[Entry]) -> list[int]:
    return [one.seq for one in found]


STORY: list[tuple[str, dict[str, object], dict[str, object]]] = [
    ("run.accepted", {"key": "k1", "uid": 1000, "name": "alice", "tenant": "acme"}, {"sandbox": "s1"}),
    ("run.finished", {"daemon": "d"}, {"sandbox": "s1", "intent": 1}),
    ("run.accepted", {"key": "k2", "uid": 1001, "name": "bob", "tenant": "umbrella"}, {"sandbox": "s2"}),
]


@given(parts=st.lists(st.lists(told(), max_size=12), min_size=1, max_size=3))
@settings(max_examples=40, deadline=None)
def test_every_question_is_answered_as_by_reading_every_line(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[tuple[str, dict[str, object], dict[str, object]]]]
) -> None:
    state = tmp_path_factory.mktemp("state")
    create(state, "ed25519:" + "d" * 32, clock=ticking())
    folder = state / "ledger"
    for part in parts:
        write(state, part)
        with Index.open(folder) as index:
            assert index.catch_up() is None
            for chosen in SELECTIONS:
                assert seqs(index.select(chosen)) == scanned(folder, chosen), chosen
                assert seqs(index.last(chosen, 2)) == scanned(folder, chosen)[-2:], chosen


def test_it_goes_through_sealed_files(state: Path, folder: Path) -> None:
    for _ in range(4):
        write(state, STORY, size=1)
    with Index.open(folder) as index:
        assert index.catch_up() is None
        assert len(list(folder.glob("0*.jsonl"))) > 1
        assert seqs(index.select(Selection(tenant="acme"))) == scanned(folder, Selection(tenant="acme")) != []


def test_of_another_ledger_it_is_made_anew(state: Path, folder: Path, tmp_path: Path) -> None:
    write(state, STORY)
    other = tmp_path / "other"
    create(other, "ed25519:" + "e" * 32)
    write(other, [*STORY, *STORY])
    with Index.open(other / "ledger") as index:
        index.catch_up()
    (other / "ledger" / INDEX).rename(folder / INDEX)
    with Index.open(folder) as index:
        assert index.catch_up() is None
        assert seqs(index.select(Selection(tenant="acme"))) == scanned(folder, Selection(tenant="acme"))


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100, b"SQLite format 3\0" + bytes(4000)])
def test_a_damaged_one_is_made_anew(state: Path, folder: Path, content: bytes) -> None:
    write(state, STORY)
    (folder / INDEX).write_bytes(content)
    with Index.open(folder) as index:
        assert index.catch_up() is None
        assert seqs(index.select(Selection(sandbox="s1"))) == scanned(folder, Selection(sandbox="s1")) != []


def test_a_line_that_is_not_the_one_it_knew_is_no_answer(state: Path, folder: Path) -> None:
    write(state, STORY)
    with Index.open(folder) as index:
        index.catch_up()
        log = folder / "current.jsonl"
        log.write_bytes(log.read_bytes().replace(b'"seq":1,', b'"seq":7,'))
        with pytest.raises(StaleIndex):
            list(index.select(Selection(sandbox="s1")))


def test_what_a_line_does_not_say_is_no_answer_whatever_the_index_says(state: Path, folder: Path) -> None:
    write(state, STORY)
    with Index.open(folder) as index:
        index.catch_up()
        with sqlite3.connect(folder / INDEX) as altered:
            altered.execute("UPDATE entries SET sandbox = (SELECT sandbox FROM entries WHERE seq = 1)")
        assert seqs(index.select(Selection(sandbox="s1"))) == scanned(folder, Selection(sandbox="s1"))


def test_a_bad_line_ends_it_there_and_is_named(state: Path, folder: Path) -> None:
    write(state, STORY)
    log = folder / "current.jsonl"
    log.write_bytes(log.read_bytes() + b'{"v":1}\n')
    with Index.open(folder) as index:
        problem = index.catch_up()
        assert problem is not None
        assert index.size == problem.seq


def test_a_line_that_is_being_written_is_waited_for(state: Path, folder: Path) -> None:
    write(state, STORY)
    log = folder / "current.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole[:-40])
    with Index.open(folder) as index:
        assert index.catch_up() is None
        before = index.size
        log.write_bytes(whole)
        assert index.catch_up() is None
        assert index.size == before + 1
        assert seqs(index.select(Selection())) == scanned(folder, Selection())


def test_two_keep_it_up_at_once(state: Path, folder: Path) -> None:
    write(state, STORY)
    with Index.open(folder) as one, Index.open(folder) as other:
        one.catch_up()
        other.catch_up()
        write(state, STORY)
        other.catch_up()
        one.catch_up()
        assert seqs(one.select(Selection())) == seqs(other.select(Selection())) == scanned(folder, Selection())


def test_it_tells_whose_an_entry_is(state: Path, folder: Path) -> None:
    write(state, STORY)
    with Index.open(folder) as index:
        index.catch_up()
        assert [index.tenant_of(seq) for seq in (1, 2, 3, 999)] == ["acme", "acme", "umbrella", None]


def test_the_last_is_found_without_the_first(state: Path, folder: Path) -> None:
    write(state, STORY)
    with Index.open(folder) as index:
        index.catch_up()
        assert seqs(index.last(Selection(), 1)) == seqs(last(folder, 1))
