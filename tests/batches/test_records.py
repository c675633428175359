"""A batch's rows: never longer than what is kept for them, never lost."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from immured.ledger.entry import MAX_LINE, build_line, encode_body
from immured.service.batches.records import MAX_ROW, ROWS_ROOM, bounded_row, in_entries, name_of_run, ranges, size_of

LEAVES = st.text(max_size=900) | st.integers(0, 2**53 - 1) | st.booleans()
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=8), inner, max_size=6)
)
ROWS = st.dictionaries(st.sampled_from("argv env files collect failure violations usage streams".split()), VALUES)


@settings(deadline=None)
@given(ROWS)
def test_a_row_is_within_its_bound_and_keeps_its_names(row: dict[str, Any]) -> None:
    names = set(row)
    bounded = bounded_row(dict(row))
    assert set(bounded) == names
    assert size_of(bounded) <= MAX_ROW
    if size_of(row) <= MAX_ROW - 100:
        assert bounded == row


@settings(deadline=None)
@given(st.lists(ROWS, max_size=60))
def test_entries_hold_every_row_in_order_and_none_is_longer_than_a_line(rows: list[dict[str, Any]]) -> None:
    rows = [bounded_row(row) for row in rows]
    entries = in_entries(rows)
    assert [row for entry in entries for row in entry] == rows
    for entry in entries:
        actor = {"key": "ed25519:" + "f" * 32, "name": "n" * 64, "uid": 2**32, "tenant": "t" * 64, "sub": "s" * 256}
        body = encode_body("batch.accepted", actor, {"batch": "b" * 17, "intent": 2**50, "commands": entry})
        line = build_line(2**50, "2026-01-02T03:04:05.000000000Z", body, "0" * 64)
        assert len(line) <= MAX_LINE
        assert json.loads(line)["data"]["commands"] == json.loads(json.dumps(entry))


def test_a_full_entry_and_one_row_more_fit_a_line() -> None:
    assert ROWS_ROOM + MAX_ROW + 9_000 < MAX_LINE


def test_the_longest_row_is_one_run_of_what_no_entry_holds() -> None:
    row = bounded_row({"argv": [f"{index:05d}" * 100 for index in range(2000)], "cwd": "/tmp"})
    assert row["cwd"] == "/tmp"
    assert isinstance(row["argv"], dict)
    assert row["argv"]["of"] == "json"


def test_ranges() -> None:
    assert ranges([]) == ""
    assert ranges([3, 4, 5, 9]) == "3-5,9"
    assert ranges(range(0, 200, 2), at_most=3) == "0,2,4,and 97 more"


def test_a_runs_name_is_a_sandboxs() -> None:
    assert name_of_run("b" + "0123456789abcdef", 1023) == "s0123456789abcdef03ff"
