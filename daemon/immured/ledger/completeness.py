"""Whether every intent has its outcome: what a chain cannot show, because what was never appended breaks no link.

    found = Completeness()
    for entry in ...: found.visit(entry)          # in order; those of TYPES are enough
    found.report()

An intent is open while its daemon may still write the outcome: a run, a command or a batch for as long as that one
lives; a sandbox and an exec in one over restarts too, for as long as each next daemon adopts it (docs/ledger.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from immured.ledger import entry_types as kinds
from immured.ledger.entry import Entry

__all__ = ["TYPES", "Completeness", "Fault", "Report"]

_OUTCOMES: Final[Mapping[str, frozenset[str]]] = {
    kinds.RUN_ACCEPTED: frozenset({kinds.RUN_FINISHED, kinds.RUN_LOST}),
    kinds.BATCH_ACCEPTED: frozenset({kinds.BATCH_FINISHED, kinds.BATCH_LOST}),
    kinds.SANDBOX_CREATED: frozenset({kinds.SANDBOX_ENDED, kinds.SANDBOX_LOST}),
    kinds.EXEC_ACCEPTED: frozenset({kinds.EXEC_FINISHED, kinds.EXEC_LOST}),
    kinds.COMMAND_ACCEPTED: frozenset({kinds.COMMAND_DONE, kinds.COMMAND_LOST, kinds.SANDBOX_CHANGED}),
}
"""What may follow each intent, once."""
_INTENT_OF: Final = {outcome: intent for intent, outcomes in _OUTCOMES.items() for outcome in outcomes}
_LOST: Final = frozenset({kinds.RUN_LOST, kinds.BATCH_LOST, kinds.SANDBOX_LOST, kinds.EXEC_LOST, kinds.COMMAND_LOST})
_ALONE: Final = frozenset({kinds.COMMAND_DONE, kinds.SANDBOX_LOST, kinds.EXEC_LOST})
"""Outcomes that may stand without an intent: what was done at once; what the launcher had and no entry told of."""
_ADOPTED: Final = frozenset({kinds.SANDBOX_ADOPTED, kinds.EXEC_ADOPTED})
_OUTLIVES: Final = frozenset({kinds.SANDBOX_CREATED, kinds.EXEC_ACCEPTED})

TYPES: Final = frozenset({*_OUTCOMES, *_INTENT_OF, *_ADOPTED, kinds.DAEMON_STARTED, kinds.DAEMON_STOPPED})
"""The entries that matter here."""


@dataclass(frozen=True, slots=True)
class Fault:
    """An intent or an outcome that is not as it should be. `code`: `no_outcome`, `two_outcomes`, `no_intent`."""

    seq: int
    type: str
    code: str
    message: str
    names: int | None = None
    """The intent that an outcome names."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. `intents`: all; of them `finished`, `lost` (said to be so), `open` (may still be told of)."""

    intents: int
    finished: int
    lost: int
    open: tuple[int, ...]
    faults: tuple[Fault, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.faults

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        faults = [{"seq": one.seq, "type": one.type, "code": one.code, "message": one.message} for one in self.faults]
        counts = {"intents": self.intents, "finished": self.finished, "lost": self.lost}
        return {"complete": self.complete, **counts, "open": list(self.open), "faults": faults}


@dataclass(slots=True)
class _Open:
    """An intent without an outcome. `boot`: of the daemon that answers for it."""

    type: str
    boot: int


@dataclass(slots=True)
class Completeness:
    """Takes entries in order. `first`: the ledger is read from that entry on, and what was before may be spoken of."""

    first: int = 0
    _boot: int = 0
    _running: bool = False
    _intents: int = 0
    _finished: int = 0
    _lost: int = 0
    _open: dict[int, _Open] = field(default_factory=dict)
    _faults: list[Fault] = field(default_factory=list)

    def visit(self, entry: Entry) -> None:
        """Take one entry."""
        kind = entry.type
        if kind in _OUTCOMES:
            if kind == kinds.BATCH_ACCEPTED and "intent" in entry.data:
                return  # more of the commands of the one before
            self._intents += 1
            self._open[entry.seq] = _Open(kind, self._boot)
        elif kind in _INTENT_OF:
            self._close(entry)
        elif kind in _ADOPTED:
            intent = entry.data.get("intent")
            one = self._open.get(intent) if isinstance(intent, int) else None
            if one is not None:
                one.boot = self._boot
        elif kind == kinds.DAEMON_STARTED:
            self._boot += 1
            self._running = True
        elif kind == kinds.DAEMON_STOPPED:
            self._running = False

    def _close(self, entry: Entry) -> None:
        intent = entry.data.get("intent")
        if not isinstance(intent, int):
            if entry.type not in _ALONE:
                self._fault(entry.seq, entry.type, "no_intent", "it names no intent")
            return
        one = self._open.get(intent)
        if one is not None and one.type == _INTENT_OF[entry.type]:
            del self._open[intent]
            if entry.type in _LOST:
                self._lost += 1
            else:
                self._finished += 1
        elif intent >= self.first:
            what = f"entry {intent}, which it names, is no {_INTENT_OF[entry.type]} that was open"
            self._fault(entry.seq, entry.type, "two_outcomes" if one is None else "no_intent", what, intent)

    def _fault(self, seq: int, kind: str, code: str, message: str, names: int | None = None) -> None:
        self._faults.append(Fault(seq, kind, code, message, names))

    def report(self, first: int = 0) -> Report:
        """What there is by now; `first`: of a ledger that turned out to be kept from that entry on. An intent of a
        daemon that is over, which no outcome and no later daemon speaks of, is a fault; one of the present daemon's is
        open."""
        missing = [
            Fault(seq, one.type, "no_outcome", "no entry says what came of it, and its daemon is over")
            for seq, one in self._open.items()
            if self._is_over(one)
        ]
        still = tuple(seq for seq, one in self._open.items() if not self._is_over(one))
        known = [fault for fault in self._faults if fault.names is None or fault.names >= first]
        faults = tuple(sorted([*known, *missing], key=lambda fault: fault.seq))
        return Report(self._intents, self._finished, self._lost, still, faults)

    def _is_over(self, one: _Open) -> bool:
        """Of the last daemon in the ledger nobody knows from outside whether it lives; what it left, the next says."""
        if one.boot < self._boot:
            return True
        return not self._running and one.type not in _OUTLIVES
