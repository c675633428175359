"""An entry that gets its place natively stands where, and keeps what, it would have the longer way."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immured._ledger_write import Places
from immured.errors import Refused
from immured.ledger import Receipt
from immured.ledger.reserve import CLOSING_BYTES, OUTCOME_BYTES
from tests.ledger.sample import ACTOR, START_NS, created, opened
from tests.patience import PATIENCE_S

TYPES = ["run.accepted", "run.finished", "daemon.started"]
texts = st.text(max_size=20) | st.integers(500, 2_000).map(lambda length: "x" * length)
steps = st.tuples(
    st.sampled_from(TYPES),
    st.dictionaries(texts, texts | st.integers() | st.binary(max_size=9) | st.none(), max_size=4),
    st.sampled_from([False, True, 0, 200, 70_000]),
    st.sampled_from(["", "outcome_of", "part_of"]),
    st.integers(0, 8),
    st.booleans(),
    st.sampled_from([0, 1, 10**9, -1, -(10**10)]),
)


class Told:
    """A ledger in memory, and what its entries came to."""

    def __init__(self, *, slowly: bool) -> None:
        self.now = START_NS + 10**9
        self.storage = created()
        self.ledger = opened(self.storage, clock=lambda: self.now)
        self.slowly = slowly
        self.came: list[object] = []

    def take(self, step: tuple[Any, ...]) -> None:
        type_, data, wanted, tie, intent, closing, later = step
        self.now += later
        if self.slowly:
            self.ledger._places.room = 0
        try:
            tied = {tie: intent} if tie else {}
            pending = self.ledger.entry(type_, ACTOR, data, reserves_outcome=wanted, closing=closing, **tied)
            self.came.append(pending.receipt)
        except (ValueError, Refused) as error:
            self.came.append(str(error))
        places = self.ledger._places
        self.came.append((places.seq, places.end, places.prev, places.last_ns, places.kept, dict(places.outstanding)))


@settings(max_examples=100, deadline=None)
@given(st.lists(steps, max_size=12), st.none() | st.integers(90_000, 400_000))
def test_any_history_is_the_same_both_ways(history: list[tuple[Any, ...]], capacity: int | None) -> None:
    swift, slow = Told(slowly=False), Told(slowly=True)
    for one in (swift, slow):
        one.storage.capacity = capacity
        for step in history:
            one.take(step)
        one.ledger.close()
    assert swift.came == slow.came
    assert swift.storage.content() == slow.storage.content()


def places(**over: object) -> Places[Receipt]:
    given_: dict[str, Any] = {"budgets": {"run.accepted": 60_000}, "receipt": Receipt, "outcome_bytes": OUTCOME_BYTES,
                              "closing_bytes": CLOSING_BYTES, **over}  # fmt: skip
    made = Places(7, bytes(32), START_NS, 1_000, **given_)
    made.room = 1 << 30
    return made


def test_an_ordinary_entry_is_placed_without_asking_anybody() -> None:
    """Otherwise nothing here is tried, and nothing gained."""
    there = places()
    placed = there.place("run.accepted", {"key": "k"}, {"argv": ["/bin/true"]}, START_NS + 5, True, None, None, False)
    assert placed is not None
    line, receipt = placed
    assert type(receipt) is Receipt
    assert (receipt.seq, receipt.leaf, there.seq, there.end) == (7, there.prev, 8, 1_000 + len(line))
    assert (there.kept, there.outstanding) == (CLOSING_BYTES + OUTCOME_BYTES, {7: OUTCOME_BYTES})


DECLINED: dict[str, tuple[Any, ...]] = {
    "a type that nobody looked at": ("run.unheard_of", {}, {}, START_NS, False, None, None, False),
    "a clock that went back": ("run.accepted", {}, {}, START_NS - 1, False, None, None, False),
    "a value that is not plain": ("run.accepted", {}, {"x": None}, START_NS, False, None, None, False),
    "a map of another kind": ("run.accepted", Receipt(0, b""), {}, START_NS, False, None, None, False),
    "a line that does not fit": ("run.accepted", {}, {"x": ["y" * 1000] * 61}, START_NS, False, None, None, False),
    "more room than there is": ("run.accepted", {}, {}, START_NS, 1 << 30, None, None, False),
}


@pytest.mark.parametrize("why", DECLINED)
def test_what_it_declines_changes_nothing(why: str) -> None:
    there = places()
    before = (there.seq, there.end, there.prev, there.last_ns, there.kept, dict(there.outstanding))
    assert there.place(*DECLINED[why]) is None
    assert (there.seq, there.end, there.prev, there.last_ns, there.kept, there.outstanding) == before


@pytest.mark.parametrize("closing", [False, True], ids=["an entry", "last words"])
def test_room_is_counted_to_the_byte(closing: bool) -> None:
    def place(room: int) -> tuple[bytes, Receipt] | None:
        there = places()
        there.room = there.end + room
        return there.place("run.accepted", {}, {}, START_NS, False, None, None, closing)

    line, _ = place(1 << 20) or pytest.fail("declined")
    exact = len(line) + (0 if closing else CLOSING_BYTES)
    assert place(exact) is not None
    assert place(exact - 1) is None


def test_a_ledger_goes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(created()) as ledger:
        ledger.entry("run.accepted", ACTOR, {}).wait(PATIENCE_S)
        monkeypatch.setattr(ledger._space, "weigh", None)  # whoever goes the long way from here on fails
        intent = ledger.entry("run.accepted", ACTOR, {}, reserves_outcome=True).receipt
        ledger.entry("run.accepted", ACTOR, {}, outcome_of=intent.seq).wait(PATIENCE_S)
