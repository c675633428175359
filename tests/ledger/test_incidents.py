"""What is an incident, as docs/metrics.md has it, and each entry of one class alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from immured.ledger import entry_types as kinds
from immured.ledger.entry import Entry
from immured.ledger.incidents import RULES, Incidents, Severity, incidents_of

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `([a-z_.]+)`([^|]*)\| ([a-z]+) \| ([a-z]+) \|$", re.MULTILINE)


def test_the_document_has_every_rule_in_its_order() -> None:
    said = [(kind, class_, severity) for kind, _, class_, severity in ROW.findall(DOCUMENT.read_text())]
    assert said == [(rule.type, rule.class_, str(rule.severity)) for rule in RULES]


@pytest.mark.parametrize(
    ("kind", "data", "class_", "severity"),
    [
        (kinds.WITNESS_REFUSED, {}, "integrity", Severity.CRITICAL),
        (kinds.EXPORT_FAILED, {"code": "export_ahead"}, "integrity", Severity.CRITICAL),
        (kinds.EXPORT_FAILED, {"code": "export_unreachable"}, "audit", Severity.MEDIUM),
        (kinds.EXEC_LOST, {"number": "7"}, "unrecorded", Severity.CRITICAL),
        (kinds.EXEC_LOST, {"intent": 7}, "loss", Severity.MEDIUM),
        (kinds.RUN_FINISHED, {"cause": "violation", "events": {"uncovered": True}}, "containment", Severity.HIGH),
        (kinds.RUN_FINISHED, {"cause": "violation", "violations": [{}]}, "violation", Severity.MEDIUM),
        (kinds.RUN_FINISHED, {"cause": "exited", "violations": [{}]}, "violation", Severity.LOW),
        (kinds.LEDGER_DURABILITY, {"mode": "none"}, "audit", Severity.MEDIUM),
        (kinds.COMMAND_DENIED, {"code": "denied"}, "refusal", Severity.LOW),
    ],
)
def test_an_incident(kind: str, data: dict[str, Any], class_: str, severity: Severity) -> None:
    rule = incidents_of(kind, data)
    assert rule is not None
    assert (rule.class_, rule.severity) == (class_, severity)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (kinds.RUN_FINISHED, {"cause": "exited", "events": {}}),
        (kinds.RUN_FINISHED, {"cause": "exited", "events": {"uncovered": False}, "violations": []}),
        (kinds.LEDGER_DURABILITY, {"mode": "full"}),
        (kinds.WITNESS_RECOVERED, {}),
        (kinds.RUN_ACCEPTED, {}),
        ("other.versions", {"cause": "violation"}),
    ],
)
def test_none(kind: str, data: dict[str, Any]) -> None:
    assert incidents_of(kind, data) is None


def entry(seq: int, kind: str, data: dict[str, Any]) -> Entry:
    return Entry(seq, "", kind, {}, data, "", b"", b"")


def test_they_are_counted_the_worst_first_and_by_weight() -> None:
    found = Incidents()
    found.visit(entry(3, kinds.PEER_MISBEHAVED, {"count": 12, "codes": {"bad_signature": 12}}))
    found.visit(entry(4, kinds.BATCH_PROGRESS, {"outcomes": [{"cause": "violation"}, {"cause": "exited"}]}))
    found.visit(entry(7, kinds.COMMAND_DENIED, {"code": "denied"}))
    found.visit(entry(9, kinds.WITNESS_REFUSED, {}))
    assert found.to_list() == [
        {"class": "integrity", "severity": "critical", "count": 1, "first": 9, "last": 9},
        {"class": "violation", "severity": "medium", "count": 1, "first": 4, "last": 4},
        {"class": "refusal", "severity": "low", "count": 13, "first": 3, "last": 7},
    ]
