"""What a ledger holds of what was counted outside of it: executions, by the launcher; decisions, by the server.

    tally = Tally(executions_from=seq, decisions_from=seq)
    for entry in ...: tally.visit(entry)                  # in order, every one of the window
    tally.executions, tally.decisions_without(under_way)

docs/metrics.md has the formulas. What is open counts as executed: an intent may stand here a moment before its payload
is let go, and never after.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping
from typing import Any, Final

from immured.ledger import entry_types as kinds
from immured.ledger.entry import Entry

__all__ = ["UNKNOWN", "Tally", "never_ran"]

UNKNOWN: Final = "?"
"""A command that no daemon knows, or that could not be read."""
_REMEMBERED: Final = 16_384
_ACCEPTED: Final = frozenset({kinds.RUN_ACCEPTED, kinds.EXEC_ACCEPTED})
_FINISHED: Final = frozenset({kinds.RUN_FINISHED, kinds.EXEC_FINISHED})
_LOST: Final = frozenset({kinds.RUN_LOST, kinds.EXEC_LOST})


def never_ran(outcome: Mapping[str, Any]) -> bool:
    """Whether an outcome says that nothing was executed: it could not be set up, or was killed before. Whoever was
    killed later ended of a signal, which is named."""
    cause = outcome.get("cause")
    return cause == "setup_failed" or (cause == "killed" and "signal" not in outcome and "exit_code" not in outcome)


class Tally:
    """Takes entries in order. `known`: the commands that there are; another's name is UNKNOWN."""

    def __init__(self, executions_from: int, decisions_from: int, known: Collection[str]) -> None:
        self.executions_from = executions_from
        self.decisions_from = decisions_from
        self.first: int | None = None
        """Of the entries that were looked at, and the last."""
        self.last: int | None = None
        self.lost = 0
        """Executions of which nobody knows whether they began: they count."""
        self.never = 0
        """Intents whose payload never ran."""
        self._known = known
        self._ran = 0
        self._open: set[int] = set()
        self._batches: dict[int, tuple[int, int]] = {}  # by intent: how many runs, and how many of them ran or may have
        self._decided: Counter[str] = Counter()
        self._payloads: OrderedDict[str, str] = OrderedDict()
        self._synced = True

    def visit(self, entry: Entry) -> None:
        """Take one entry. What was acknowledged before it was durable is no record."""
        if entry.type == kinds.LEDGER_DURABILITY:
            self._synced = entry.data.get("mode") == "full"
        if entry.seq < min(self.executions_from, self.decisions_from):
            return
        self.first = entry.seq if self.first is None else self.first
        self.last = entry.seq
        if not self._synced:
            return
        if entry.seq >= self.executions_from:
            self._executed(entry)
        if entry.seq >= self.decisions_from:
            self._decide(entry)

    @property
    def executions(self) -> int:
        """Payloads that ran by these entries, or may have, or may yet."""
        return self._ran + len(self._open) + sum(ran for _, ran in self._batches.values())

    @property
    def open(self) -> int:
        """Of them: whose outcome is not there yet."""
        return len(self._open) + sum(ran for _, ran in self._batches.values())

    def decisions_without(self, under_way: Collection[str]) -> Counter[str]:
        """Decisions by command, but for those of the payloads (hex) that the server has not counted yet."""
        found = Counter(self._decided)
        for payload in under_way:
            if (cmd := self._payloads.get(payload)) is not None:
                found[cmd] -= 1
        return found

    def knows(self, payload: str) -> bool:
        """Whether one of the last entries is of that payload (hex)."""
        return payload in self._payloads

    def _executed(self, entry: Entry) -> None:
        data, kind = entry.data, entry.type
        intent = data.get("intent")
        if kind in _ACCEPTED:
            self._open.add(entry.seq)
        elif kind in _FINISHED or kind in _LOST:
            if intent not in self._open:
                return
            self._open.discard(intent)
            if kind in _FINISHED and never_ran(data):
                self.never += 1
                return
            self.lost += kind in _LOST
            self._ran += 1
        elif kind == kinds.BATCH_ACCEPTED and intent is None:
            runs = data.get("runs")
            self._batches[entry.seq] = (runs, runs) if isinstance(runs, int) else (0, 0)
        elif kind == kinds.BATCH_PROGRESS and intent in self._batches:
            rows = data.get("outcomes")
            never = sum(never_ran(row) for row in rows if isinstance(row, Mapping)) if isinstance(rows, list) else 0
            runs, ran = self._batches[intent]
            self._batches[intent] = (runs, ran - never)
            self.never += never
        elif kind in (kinds.BATCH_FINISHED, kinds.BATCH_LOST) and intent in self._batches:
            unstarted = data.get("unstarted")
            never = unstarted if isinstance(unstarted, int) else 0
            self._ran += max(0, self._batches.pop(intent)[1] - never)
            self.never += never

    def _decide(self, entry: Entry) -> None:
        payload = entry.data.get("payload")
        if not isinstance(payload, str):
            return
        named = entry.data.get("cmd")
        cmd = named if isinstance(named, str) and named in self._known else UNKNOWN
        if entry.type != kinds.COMMAND_DENIED and payload in self._payloads:
            return  # one command, told of by several entries
        self._payloads[payload] = cmd
        if len(self._payloads) > _REMEMBERED:
            self._payloads.popitem(last=False)
        self._decided[cmd] += 1
