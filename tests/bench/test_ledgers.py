"""The large ledger of the benchmark is one, of the size asked for, with the few entries that are looked for."""

from __future__ import annotations

from itertools import pairwise

import pytest

from bench.ledgers import RARE, RARE_ENTRIES, standing
from immured.ledger.entry import Entry
from immured.ledger.ledger import load_vkeys
from immured.ledger.verify import verify_file


@pytest.mark.parametrize("entries", [2_500, 3_001])
def test_it_verifies_and_has_as_many_entries_as_were_asked_for(entries: int) -> None:
    seen: list[Entry] = []
    with standing(entries) as state:
        files = state / "ledger"
        vkeys = load_vkeys(state / "keys" / "ledger.vkey")
        report = verify_file(files / "current.jsonl", files / "checkpoints", vkeys, visit=seen.append)
    assert report.whole
    assert (report.entries, report.covered) == (entries, entries)
    assert not state.exists()
    rare = [entry.seq for entry in seen if entry.actor.get("tenant") == RARE]
    assert len(rare) == RARE_ENTRIES
    assert max(later - sooner for sooner, later in pairwise(rare)) <= 4  # evenly
    intents = {entry.seq for entry in seen if entry.type == "run.accepted"}
    assert [entry.data["intent"] for entry in seen if entry.type == "run.finished"] == sorted(intents)
