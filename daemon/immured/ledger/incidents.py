"""Which entries are security incidents, of what class and how severe: METRIC-SEC-INC (docs/metrics.md)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from immured.ledger import entry_types as kinds
from immured.ledger.entry import Entry

__all__ = ["RULES", "Incidents", "Rule", "Severity", "incidents_of"]


class Severity(StrEnum):
    """From the worst on. critical: what the project promises may be broken; high: somebody has to act now; medium:
    somebody has to look; low: a wall held, and somebody ran against it."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


@dataclass(frozen=True, slots=True)
class Rule:
    """An entry of `type` is an incident; with `member`, where `data` has that, of one of `values`, if any are named."""

    type: str
    class_: str
    severity: Severity
    member: str = ""
    values: frozenset[str] = frozenset()


def _rule(kind: str, class_: str, severity: Severity, member: str = "", values: Iterable[str] = ()) -> Rule:
    return Rule(kind, class_, severity, member, frozenset(values))


RULES: Final[tuple[Rule, ...]] = (
    _rule(kinds.WITNESS_REFUSED, "integrity", Severity.CRITICAL),
    _rule(kinds.EXPORT_FAILED, "integrity", Severity.CRITICAL, "code", ("export_differs", "export_ahead")),
    _rule(kinds.SANDBOX_LOST, "unrecorded", Severity.CRITICAL, "-intent"),
    _rule(kinds.EXEC_LOST, "unrecorded", Severity.CRITICAL, "-intent"),
    _rule(kinds.RUN_FINISHED, "containment", Severity.HIGH, "events.uncovered"),
    _rule(kinds.EXEC_FINISHED, "containment", Severity.HIGH, "events.uncovered"),
    _rule(kinds.POLICY_REFUSED, "integrity", Severity.HIGH),
    _rule(kinds.MANIFEST_DAMAGED, "integrity", Severity.HIGH),
    _rule(kinds.AUDIT_UNHEALTHY, "audit", Severity.HIGH),
    _rule(kinds.RUN_FINISHED, "violation", Severity.MEDIUM, "cause", ("violation",)),
    _rule(kinds.EXEC_FINISHED, "violation", Severity.MEDIUM, "cause", ("violation",)),
    _rule(kinds.LEDGER_RECOVERED, "audit", Severity.MEDIUM),
    _rule(kinds.LEDGER_DURABILITY, "audit", Severity.MEDIUM, "mode", ("none",)),
    _rule(kinds.CLOCK_STEPPED, "audit", Severity.MEDIUM),
    _rule(kinds.EXPORT_FAILED, "audit", Severity.MEDIUM, "code"),
    _rule(kinds.WITNESS_FAILED, "audit", Severity.MEDIUM),
    _rule(kinds.RUN_LOST, "loss", Severity.MEDIUM),
    _rule(kinds.BATCH_LOST, "loss", Severity.MEDIUM),
    _rule(kinds.SANDBOX_LOST, "loss", Severity.MEDIUM, "intent"),
    _rule(kinds.EXEC_LOST, "loss", Severity.MEDIUM, "intent"),
    _rule(kinds.COMMAND_LOST, "loss", Severity.MEDIUM),
    _rule(kinds.MANIFEST_REFUSED, "refusal", Severity.LOW),
    _rule(kinds.COMMAND_DENIED, "refusal", Severity.LOW),
    _rule(kinds.PEER_MISBEHAVED, "refusal", Severity.LOW),
    _rule(kinds.RUN_FINISHED, "violation", Severity.LOW, "violations"),
    _rule(kinds.EXEC_FINISHED, "violation", Severity.LOW, "violations"),
)
"""The first that fits counts, and no other."""

_BY_TYPE: Final[Mapping[str, tuple[Rule, ...]]] = {
    kind: tuple(rule for rule in RULES if rule.type == kind) for kind in {rule.type for rule in RULES}
}


def incidents_of(kind: str, data: Mapping[str, Any]) -> Rule | None:
    """The rule by which an outcome or an entry is an incident."""
    return next((rule for rule in _BY_TYPE.get(kind, ()) if _fits(rule, data)), None)


def _fits(rule: Rule, data: Mapping[str, Any]) -> bool:
    if rule.member.startswith("-"):
        return rule.member[1:] not in data
    value: object = data
    for name in rule.member.split(".") if rule.member else ():
        value = value.get(name) if isinstance(value, Mapping) else None
    if not rule.member:
        return True
    if rule.values:
        return isinstance(value, str) and value in rule.values
    return value is not None and value is not False and value != []


class Incidents:
    """Counts them: by class and severity how many, and the first and last entry that is one."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, Severity], list[int]] = {}

    def visit(self, entry: Entry) -> None:
        """Take one entry."""
        for kind, data in _parts(entry):
            rule = incidents_of(kind, data)
            if rule is not None:
                count = data.get("count") if kind == kinds.PEER_MISBEHAVED else 1
                self._add(rule, count if isinstance(count, int) else 1, entry.seq)

    def _add(self, rule: Rule, count: int, seq: int) -> None:
        found = self._found.setdefault((rule.class_, rule.severity), [0, seq, seq])
        found[0] += count
        found[2] = seq

    def to_list(self) -> list[dict[str, object]]:
        """`class`, `severity`, `count`, `first`, `last`: the worst first."""
        order = list(Severity)
        ranked = sorted(self._found.items(), key=lambda item: (order.index(item[0][1]), item[0][0]))
        return [
            {"class": class_, "severity": str(severity), "count": count, "first": first, "last": last}
            for (class_, severity), (count, first, last) in ranked
        ]


def _parts(entry: Entry) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """An entry; of a batch's each run's outcome, as if it were a run's."""
    yield entry.type, entry.data
    rows = entry.data.get("outcomes") if entry.type == kinds.BATCH_PROGRESS else None
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, Mapping):
            yield kinds.RUN_FINISHED, row
