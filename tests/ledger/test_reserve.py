"""Space for outcomes is kept before an intent is let in, and nothing else may use it."""

from __future__ import annotations

import pytest

from immured.errors import Refused
from immured.ledger import Ledger, Receipt
from immured.ledger.entry import MAX_LINE
from immured.ledger.reader import scan
from immured.ledger.reserve import CLOSING_BYTES, OUTCOME_BYTES
from tests.ledger.memory import MemoryStorage
from tests.ledger.sample import ACTOR, created, opened
from tests.patience import PATIENCE_S

LONGEST = {"streams": ["x" * 1000] * 64}


def disk(capacity: int) -> MemoryStorage:
    """A disk with this much room for the ledger's file, and a new ledger on it."""
    storage = created()
    storage.capacity = storage.size() + capacity
    return storage


def until_full(ledger: Ledger, type_: str, *, reserves_outcome: bool = False) -> list[Receipt]:
    """Append until the disk is full: what was let in."""
    receipts: list[Receipt] = []
    for _ in range(1000):
        try:
            receipts.append(ledger.entry(type_, ACTOR, {}, reserves_outcome=reserves_outcome).wait(PATIENCE_S))
        except Refused:
            return receipts
    raise AssertionError("the disk never got full")


def kinds(storage: MemoryStorage) -> list[str]:
    seen: list[str] = []
    assert scan(storage, storage.size(), {}, lambda entry: seen.append(entry.type)).problem is None
    return seen


def test_an_outcome_is_never_longer_than_what_is_kept_for_it() -> None:
    assert MAX_LINE + 1 <= OUTCOME_BYTES


def test_an_intent_without_room_for_its_outcome_is_refused() -> None:
    with opened(disk(CLOSING_BYTES + OUTCOME_BYTES)) as ledger:
        with pytest.raises(Refused) as caught:
            ledger.entry("run.accepted", ACTOR, {}, reserves_outcome=True)
        assert caught.value.code == "ledger_unavailable"
        assert caught.value.retry
        assert "/memory/ledger" in caught.value.remedy
        assert ledger.status().outstanding == 0


def test_an_intent_with_room_for_its_outcome_is_let_in() -> None:
    with opened(disk(CLOSING_BYTES + OUTCOME_BYTES + 1000)) as ledger:
        ledger.entry("run.accepted", ACTOR, {}, reserves_outcome=True).wait(PATIENCE_S)
        assert ledger.status().outstanding == 1


def test_admit_says_what_would_be_let_in_and_keeps_nothing() -> None:
    with opened(disk(CLOSING_BYTES + 4 * OUTCOME_BYTES)) as ledger:
        for _ in range(3):
            ledger.admit(2)
        with pytest.raises(Refused, match="full"):
            ledger.admit(3)


def test_other_entries_never_use_what_is_kept() -> None:
    storage = disk(CLOSING_BYTES + OUTCOME_BYTES + 3000)
    with opened(storage) as ledger:
        intent = ledger.entry("run.accepted", ACTOR, {}, reserves_outcome=True).wait(PATIENCE_S)
        until_full(ledger, "command.denied")
        ledger.entry("run.finished", ACTOR, LONGEST, outcome_of=intent.seq).wait(PATIENCE_S)
    assert kinds(storage)[-1] == "run.finished"


def test_the_longest_outcomes_of_all_that_were_let_in_fit() -> None:
    storage = disk(10 * OUTCOME_BYTES)
    with opened(storage) as ledger:
        intents = until_full(ledger, "run.accepted", reserves_outcome=True)
        assert len(intents) == 9
        storage.capacity = storage.size()  # somebody else takes every byte that is left
        for intent in intents:
            ledger.entry("run.finished", ACTOR, LONGEST, outcome_of=intent.seq).wait(PATIENCE_S)
    assert kinds(storage).count("run.finished") == 9


def test_an_outcome_frees_room_for_another_intent() -> None:
    with opened(disk(CLOSING_BYTES + OUTCOME_BYTES + 4000)) as ledger:
        for _ in range(3):
            intent = ledger.entry("run.accepted", ACTOR, {}, reserves_outcome=True).wait(PATIENCE_S)
            ledger.entry("run.finished", ACTOR, {}, outcome_of=intent.seq).wait(PATIENCE_S)


def test_a_released_intent_frees_its_room() -> None:
    with opened(disk(CLOSING_BYTES + OUTCOME_BYTES + 4000)) as ledger:
        for _ in range(3):
            ledger.release(ledger.entry("run.accepted", ACTOR, {}, reserves_outcome=True).wait(PATIENCE_S).seq)


def test_the_last_words_have_room_of_their_own() -> None:
    storage = disk(CLOSING_BYTES + 2000)
    with opened(storage) as ledger:
        until_full(ledger, "command.denied")
        ledger.entry("daemon.stopped", ACTOR, {"reason": "signal"}, closing=True).wait(PATIENCE_S)
    assert kinds(storage)[-1] == "daemon.stopped"


def test_a_clock_that_steps_takes_nothing_from_an_outcome() -> None:
    storage = disk(CLOSING_BYTES + OUTCOME_BYTES + 1000)
    now = 1_800_000_000_000_000_000
    with opened(storage, clock=lambda: now) as ledger:
        intent = ledger.entry("run.accepted", ACTOR, {}, reserves_outcome=True).wait(PATIENCE_S)
        now -= 10**9
        ledger.entry("run.finished", ACTOR, LONGEST, outcome_of=intent.seq).wait(PATIENCE_S)
    assert kinds(storage)[-2:] == ["clock.stepped", "run.finished"]


def test_room_that_comes_back_is_used() -> None:
    storage = disk(0)
    with opened(storage) as ledger:
        with pytest.raises(Refused, match="full"):
            ledger.entry("run.accepted", ACTOR, {}, reserves_outcome=True)
        storage.capacity = 1 << 30
        ledger.entry("run.accepted", ACTOR, {}, reserves_outcome=True).wait(PATIENCE_S)


# --- a file system that allocates nothing in advance ---


def ballasted(capacity: int) -> MemoryStorage:
    storage = disk(capacity)
    storage.can_allocate = False
    return storage


def test_without_preallocation_an_intent_that_has_no_room_is_refused() -> None:
    with opened(ballasted(OUTCOME_BYTES)) as ledger, pytest.raises(Refused, match="full"):
        ledger.entry("run.accepted", ACTOR, {}, reserves_outcome=True)


def test_without_preallocation_outcomes_are_written_when_the_disk_is_full() -> None:
    storage = ballasted(4 << 20)
    with opened(storage) as ledger:
        intents = [ledger.entry("run.accepted", ACTOR, {}, reserves_outcome=True).wait(PATIENCE_S) for _ in range(5)]
        held = sum(len(content) for name, content in storage.files.items() if name == "ballast")
        storage.capacity = storage.size() + held  # somebody else takes every byte that is left
        for intent in intents:
            ledger.entry("run.finished", ACTOR, LONGEST, outcome_of=intent.seq).wait(PATIENCE_S)
    assert kinds(storage).count("run.finished") == 5


def test_without_preallocation_no_intent_is_let_in_once_the_ballast_is_gone() -> None:
    storage = ballasted(4 << 20)
    with opened(storage) as ledger:
        intent = ledger.entry("run.accepted", ACTOR, {}, reserves_outcome=True).wait(PATIENCE_S)
        held = len(storage.files["ballast"])
        storage.capacity = storage.size() + held
        ledger.entry("run.finished", ACTOR, LONGEST, outcome_of=intent.seq).wait(PATIENCE_S)
        with pytest.raises(Refused, match="full"):
            ledger.entry("run.accepted", ACTOR, {}, reserves_outcome=True)


def test_a_closed_ledger_leaves_no_ballast() -> None:
    storage = ballasted(4 << 20)
    with opened(storage) as ledger:
        ledger.entry("run.accepted", ACTOR, {}, reserves_outcome=True).wait(PATIENCE_S)
        assert "ballast" in storage.files
    assert "ballast" not in storage.files


def test_an_outcome_of_several_entries_draws_on_what_was_kept_for_it_and_on_nothing_else() -> None:
    storage = disk(CLOSING_BYTES + 40_000)
    with opened(storage) as ledger:
        intent = ledger.entry("batch.accepted", ACTOR, {}, reserves_outcome=30_000).wait(PATIENCE_S)
        until_full(ledger, "command.denied")
        for _ in range(20):
            ledger.entry("batch.progress", ACTOR, {"runs": ["x" * 1000]}, part_of=intent.seq).wait(PATIENCE_S)
        ledger.entry("batch.finished", ACTOR, {}, outcome_of=intent.seq).wait(PATIENCE_S)
        assert ledger.status().outstanding == 0
        until_full(ledger, "command.denied")
    assert storage.capacity is not None
    assert storage.size() <= storage.capacity - CLOSING_BYTES


def test_more_than_was_kept_is_an_entry_like_any_other() -> None:
    storage = disk(CLOSING_BYTES + 4_000)
    with opened(storage) as ledger:
        intent = ledger.entry("batch.accepted", ACTOR, {}, reserves_outcome=1_500).wait(PATIENCE_S)
        until_full(ledger, "command.denied")
        ledger.entry("batch.progress", ACTOR, {"runs": ["x" * 1000]}, part_of=intent.seq).wait(PATIENCE_S)
        with pytest.raises(Refused, match="full"):
            ledger.entry("batch.progress", ACTOR, {"runs": ["x" * 1000]}, part_of=intent.seq)


def test_what_is_released_is_anybodys() -> None:
    storage = disk(CLOSING_BYTES + 20_000)
    with opened(storage) as ledger:
        intent = ledger.entry("batch.accepted", ACTOR, {}, reserves_outcome=18_000).wait(PATIENCE_S)
        few = len(until_full(ledger, "command.denied"))
        ledger.release(intent.seq)
        assert len(until_full(ledger, "command.denied")) > few
