"""Every intent has one outcome, or somebody who still answers for it."""

from __future__ import annotations

import pytest

from immured.ledger.completeness import Completeness, Report
from immured.ledger.entry import Entry

PAIRS = [
    ("run.accepted", "run.finished"),
    ("run.accepted", "run.lost"),
    ("batch.accepted", "batch.finished"),
    ("batch.accepted", "batch.lost"),
    ("sandbox.created", "sandbox.ended"),
    ("sandbox.created", "sandbox.lost"),
    ("exec.accepted", "exec.finished"),
    ("exec.accepted", "exec.lost"),
    ("command.accepted", "command.done"),
    ("command.accepted", "command.lost"),
    ("command.accepted", "sandbox.changed"),
]
INTENTS = sorted({intent for intent, _ in PAIRS})
LASTING = ["exec.accepted", "sandbox.created"]


def report(*told: str | tuple[str, int], first: int = 0) -> Report:
    """Of entries from `first` on: a type, or a type and the intent that it names."""
    found = Completeness(first)
    for seq, one in enumerate(told, first):
        kind, data = (one, {}) if isinstance(one, str) else (one[0], {"intent": one[1]})
        found.visit(Entry(seq, "", kind, {}, data, "", b"", b""))
    return found.report()


def faults(found: Report) -> list[tuple[int, str]]:
    return [(one.seq, one.code) for one in found.faults]


@pytest.mark.parametrize(("intent", "outcome"), PAIRS)
def test_an_intent_and_its_outcome_are_complete(intent: str, outcome: str) -> None:
    found = report("daemon.started", intent, (outcome, 1), "daemon.stopped")
    assert found.complete
    assert (found.intents, found.finished + found.lost, found.open) == (1, 1, ())


@pytest.mark.parametrize("intent", INTENTS)
def test_what_the_last_daemon_has_under_way_is_open(intent: str) -> None:
    found = report("daemon.started", intent)
    assert found.complete
    assert found.open == (1,)


@pytest.mark.parametrize("intent", INTENTS)
def test_an_intent_that_the_next_daemon_says_nothing_of_has_no_outcome(intent: str) -> None:
    assert faults(report("daemon.started", intent, "daemon.started")) == [(1, "no_outcome")]


@pytest.mark.parametrize("intent", sorted(set(INTENTS) - set(LASTING)))
def test_nothing_is_open_when_a_daemon_has_stopped(intent: str) -> None:
    assert faults(report("daemon.started", intent, "daemon.stopped")) == [(1, "no_outcome")]


@pytest.mark.parametrize(("intent", "adopted"), [(LASTING[0], "exec.adopted"), (LASTING[1], "sandbox.adopted")])
def test_what_lives_on_is_open_for_as_long_as_each_daemon_adopts_it(intent: str, adopted: str) -> None:
    told: list[str | tuple[str, int]] = ["daemon.started", intent, "daemon.stopped", "daemon.started", (adopted, 1)]
    assert report(*told).open == (1,)
    assert faults(report(*told, "daemon.started")) == [(1, "no_outcome")]


def test_what_was_lost_is_said_before_the_next_daemon_begins() -> None:
    assert report("daemon.started", "run.accepted", ("run.lost", 1), "daemon.started").complete


@pytest.mark.parametrize(("intent", "outcome"), PAIRS)
def test_a_second_outcome_is_one_too_many(intent: str, outcome: str) -> None:
    assert faults(report("daemon.started", intent, (outcome, 1), (outcome, 1))) == [(3, "two_outcomes")]


def test_an_outcome_of_another_kind_of_intent_is_none() -> None:
    found = report("daemon.started", "run.accepted", ("exec.finished", 1))
    assert faults(found) == [(2, "no_intent")]
    assert found.open == (1,)


@pytest.mark.parametrize("alone", ["command.done", "sandbox.lost", "exec.lost"])
def test_what_has_no_intent_of_its_own_needs_none(alone: str) -> None:
    assert report("daemon.started", alone).complete


def test_an_outcome_must_name_its_intent() -> None:
    assert faults(report("daemon.started", "run.finished")) == [(1, "no_intent")]


def test_more_commands_of_a_batch_are_no_further_intent() -> None:
    assert report("daemon.started", "batch.accepted", ("batch.accepted", 1), ("batch.finished", 1)).intents == 1


def test_what_was_kept_of_a_ledger_may_speak_of_what_was_not() -> None:
    assert report("ledger.rotated", ("run.finished", 40), "daemon.stopped", first=50).complete


def test_what_was_retired_may_be_spoken_of_by_who_learns_so_later() -> None:
    """Whoever reads a ledger learns where it begins only by reading it."""
    found = Completeness()
    found.visit(Entry(9, "", "run.finished", {}, {"intent": 3}, "", b"", b""))
    assert faults(found.report()) == [(9, "two_outcomes")]
    assert faults(found.report(first=8)) == []
    assert faults(found.report(first=3)) == [(9, "two_outcomes")]
