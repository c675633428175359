"""What counts as recorded: of executions what ran, of decisions each once; and nothing that was not durable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from immured.ledger import entry_types as kinds
from immured.ledger.entry import Entry
from immured.ledger.tally import UNKNOWN, Tally, never_ran

Written = tuple[str, Mapping[str, Any]]
KNOWN = frozenset({"run", "kill", "sandbox.create"})


def tally(*written: Written, executions_from: int = 0, decisions_from: int = 0) -> Tally:
    made = Tally(executions_from, decisions_from, KNOWN)
    for seq, (kind, data) in enumerate(written):
        made.visit(Entry(seq, "2026-01-01T00:00:00.000000000Z", kind, {}, data, "0" * 64, b"", b""))
    return made


def accepted(payload: str = "", kind: str = kinds.RUN_ACCEPTED, **data: Any) -> Written:
    return kind, {"cmd": "run", **({"payload": payload} if payload else {}), **data}


def finished(intent: int, cause: str = "exited", **data: Any) -> Written:
    return kinds.RUN_FINISHED, {"intent": intent, "cause": cause, **data}


def test_an_intent_counts_until_its_outcome_says_that_nothing_ran() -> None:
    assert tally(accepted()).executions == 1
    assert tally(accepted()).open == 1
    assert tally(accepted(), finished(0, exit_code=0)).executions == 1
    assert tally(accepted(), finished(0, "setup_failed")).executions == 0
    assert tally(accepted(), finished(0, "setup_failed")).never == 1
    assert tally(accepted(), (kinds.RUN_LOST, {"intent": 0})).lost == 1
    assert tally(accepted(), (kinds.RUN_LOST, {"intent": 0})).executions == 1


def test_an_outcome_without_its_intent_is_no_execution() -> None:
    assert tally(finished(7, exit_code=0)).executions == 0
    assert tally(accepted(), finished(0), finished(0)).executions == 1


@pytest.mark.parametrize(
    ("outcome", "never"),
    [
        ({"cause": "killed"}, True),
        ({"cause": "killed", "signal": 9}, False),
        ({"cause": "killed", "exit_code": 0}, False),
        ({"cause": "timeout", "signal": 9}, False),
        ({"cause": "setup_failed"}, True),
    ],
)
def test_what_never_ran(outcome: dict[str, Any], never: bool) -> None:
    assert never_ran(outcome) is never


def test_a_batch_counts_its_runs() -> None:
    begun = (kinds.BATCH_ACCEPTED, {"runs": 5})
    more = (kinds.BATCH_ACCEPTED, {"intent": 0, "from": 3})
    some = (kinds.BATCH_PROGRESS, {"intent": 0, "outcomes": [{"run": 0, "cause": "exited"}, {"cause": "setup_failed"}]})
    assert tally(begun, more).executions == 5
    assert tally(begun, more, some).executions == 4
    over = tally(begun, more, some, (kinds.BATCH_FINISHED, {"intent": 0, "unstarted": 2}))
    assert (over.executions, over.open, over.never) == (2, 0, 3)


def test_a_window_begins_where_it_begins() -> None:
    entries = [accepted("aa"), finished(0), accepted("bb")]
    assert tally(*entries, executions_from=1, decisions_from=1).executions == 1
    assert tally(*entries, executions_from=1, decisions_from=1).decisions_without(()) == {"run": 1}


def test_a_decision_counts_once_however_many_entries_it_has() -> None:
    made = [(kinds.SANDBOX_CREATED, {"cmd": "sandbox.create", "payload": "aa"})] * 3
    assert tally(*made).decisions_without(()) == {"sandbox.create": 1}


def test_each_refusal_counts_and_unknown_commands_are_one() -> None:
    denied = (kinds.COMMAND_DENIED, {"cmd": "run", "payload": "aa"})
    odd = (kinds.COMMAND_DENIED, {"cmd": "no.such", "payload": "bb"})
    found = tally(denied, denied, odd, (kinds.COMMAND_DENIED, {"payload": "cc"})).decisions_without(())
    assert found == {"run": 2, UNKNOWN: 2}


def test_what_is_under_way_covers_nothing_that_is_missing() -> None:
    found = tally(accepted("aa"), accepted("bb"))
    assert +found.decisions_without({"bb", "dd"}) == {"run": 1}
    assert found.knows("aa")
    assert not found.knows("dd")


def test_what_nobody_waited_for_the_disk_with_is_no_record() -> None:
    off, on = (kinds.LEDGER_DURABILITY, {"mode": "none"}), (kinds.LEDGER_DURABILITY, {"mode": "full"})
    found = tally(off, accepted("aa"), on, accepted("bb"))
    assert found.executions == 1
    assert found.decisions_without(()) == {"run": 1}
