"""Whether the record is fit to be relied on, looked at once a second: `[audit] require` makes of it a condition.

    append      the ledger takes entries (always required: without that there is no intent)
    checkpoint  what was entered is signed in time
    export      every copy holds what is signed
    witness     every witness cosigned what is signed
    clock       the time is not before what the ledger says already

What is required and is not so refuses new intents, `audit_unhealthy`; whoever is let in already, and whoever ends
something, goes on. What turns, either way, is an entry. So is a clock that steps against the monotonic one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.identity.policy.permissions import PERMISSIONS, TargetKind
from immured.ledger import entry_types
from immured.ledger.timestamps import timestamp
from immured.service.decided import READS

if TYPE_CHECKING:
    from immured.ledger import Entry, Ledger
    from immured.service.exports import Exports
    from immured.service.witnesses import Witnesses

__all__ = ["BEGINS", "AuditHealth", "AuditHistory", "Fault"]

_ENDS: Final = frozenset(
    {
        *("kill", "sandbox.kill", "sandbox.remove", "sandbox.prune", "sandbox.pause", "sandbox.signal"),
        *("sandbox.resize", "sandbox.logs", "sandbox.attach", "changes.discard", "preflight"),
    }
)
"""Whatever is wrong, it may be looked at and ended."""
_ACTING: Final = frozenset({TargetKind.SANDBOX, TargetKind.RUN, TargetKind.STORAGE})
BEGINS: Final = frozenset(name for name, kind in PERMISSIONS.items() if kind in _ACTING) - READS - _ENDS
"""The commands that are refused."""

_EVERY_S: Final = 1.0
_STEP_NS: Final = 2_000_000_000
_CHECKPOINT_GRACE_S: Final = 30.0
_LATE_S: Final = 600.0
_UNREADY_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is not as it should be. `unready`: nothing failed yet, and nothing is known either."""

    part: str
    code: str
    message: str
    remedy: str
    unready: bool = False

    def to_map(self) -> dict[str, object]:
        """For `status`."""
        return {"part": self.part, "code": self.code, "message": self.message, "remedy": self.remedy}


class AuditHistory:
    """What the ledger says of its health: which parts were unhealthy at last. Fed every `audit.` entry, in order."""

    def __init__(self) -> None:
        self.told: dict[str, int] = {}
        """By part: the entry's `seq`."""

    def visit(self, entry: Entry) -> None:
        """Take one."""
        part = entry.data.get("part")
        if not isinstance(part, str):
            return
        if entry.type == entry_types.AUDIT_RECOVERED:
            self.told.pop(part, None)
        else:
            self.told[part] = entry.seq


@dataclass(slots=True)
class _Lag:
    """Since when somebody has not come as far as he was to come then."""

    wanted: int = 0
    since: float = 0.0

    def late_s(self, has: int, now: float, newest: int) -> float:
        if has >= self.wanted:
            self.wanted, self.since = newest, now
        return 0.0 if has >= newest else now - self.since


def _boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass(slots=True)
class AuditHealth:
    """Looks once a second. `require`: of `config.AUDIT_PARTS`; `checkpoint_s`: as there; `steady` goes on in a
    suspended host, too."""

    ledger: Ledger
    exports: Exports | None
    witnesses: Witnesses | None
    actor: Callable[[], Mapping[str, object]]
    require: tuple[str, ...] = ()
    checkpoint_s: float = 300.0
    history: AuditHistory = field(default_factory=AuditHistory)
    clock: Callable[[], int] = time.time_ns
    steady: Callable[[], int] = _boottime_ns
    faults: tuple[Fault, ...] = ()
    """What is wrong now."""
    refusing: Fault | None = None
    """The first of them that is required: why new intents are refused."""
    _told: dict[str, int] = field(default_factory=dict)
    _began: float = 0.0
    _offset: int | None = None
    _latest: int = 0
    _unsigned: _Lag = field(default_factory=_Lag)
    _lags: dict[str, _Lag] = field(default_factory=dict)
    _timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look now, and from now on."""
        self._told = dict(self.history.told)
        self._began = self.steady() / 1e9
        self._again()

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _again(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_EVERY_S, self._again)
        self.look()

    def check(self, cmd: str) -> None:
        """Raises Refused `audit_unhealthy` for a command that begins something, while a required part is unhealthy."""
        fault = self.refusing
        if fault is not None and cmd in BEGINS:
            raise Refused(
                "audit_unhealthy",
                f"nothing new is begun: [audit] require names {fault.part!r}, which is not well ({fault.code})",
                "the operator sees why, and what to do, by `immure status`; it is tried again all the time",
                details={"part": fault.part, "reason": fault.code},
            )

    def look(self) -> None:
        """Judge, and tell the ledger what has turned."""
        now = self.steady() / 1e9
        stepped = self._stepped()
        self.faults = tuple(self._judge(now))
        self.refusing = next((one for one in self.faults if one.part in self.require), None)
        if stepped is not None:
            self._enter(entry_types.CLOCK_STEPPED, stepped)
        self._tell(now)

    def to_map(self) -> dict[str, object]:
        """For `status`."""
        return {"require": list(self.require), "faults": [one.to_map() for one in self.faults]}

    # --- what is so

    def _judge(self, now: float) -> Iterator[Fault]:
        failure = self.ledger.failure
        if failure is not None:
            yield Fault("append", failure.code, failure.message, failure.remedy)
        yield from self._checkpoint(now)
        signed = self.ledger.status().checkpoint
        for one in self.exports.all if self.exports is not None else ():
            if one.failure is not None:
                yield Fault("export", one.failure.code, one.failure.message, one.failure.remedy)
            elif not one.copied:
                message = f"{one.name} was not brought up to date yet, since the daemon started"
                yield Fault("export", "export_unready", message, "wait for it", unready=True)
            else:
                allowed = _LATE_S + one.exporter.place.every_ms / 1000
                yield from self._late("export", one.name, one.entries, signed, now, allowed)
        for asked in self.witnesses.all if self.witnesses is not None else ():
            name = asked.place.name
            if asked.failure is not None:
                yield Fault("witness", asked.failure.code, f"{name}: {asked.failure.message}", asked.failure.remedy)
            elif not asked.size:
                yield Fault("witness", "witness_unready", f"{name} has cosigned nothing yet", "wait", unready=True)
            else:
                yield from self._late("witness", name, asked.size, signed, now, _LATE_S)
        if self.clock() < self._latest - _STEP_NS:
            until = timestamp(self._latest)
            message = f"the clock is before {until}, when the last entries were made"
            yield Fault("clock", "clock_behind", message, "set it; or restart the daemon, if it was ahead before")

    def _checkpoint(self, now: float) -> Iterator[Fault]:
        standing = self.ledger.status()
        if standing.checkpoint_failure:
            remedy = "see to the disk of the ledger; it is tried again"
            yield Fault("checkpoint", "checkpoint_unwritten", standing.checkpoint_failure, remedy)
        late = self._unsigned.late_s(standing.checkpoint, now, standing.entries)
        if late > self.checkpoint_s + _CHECKPOINT_GRACE_S:
            message = f"entries from {standing.checkpoint} on are not signed since {late:.0f} s"
            yield Fault("checkpoint", "checkpoint_stale", message, "see the daemon's log; restart it")

    def _late(self, part: str, name: str, has: int, signed: int, now: float, allowed: float) -> Iterator[Fault]:
        late = self._lags.setdefault(f"{part} {name}", _Lag()).late_s(has, now, signed)
        if late > allowed:
            message = f"{name} has {has} of {signed} signed entries, since {late:.0f} s"
            yield Fault(part, f"{part}_behind", message, "see what keeps it: its network, its disk")

    def _stepped(self) -> dict[str, object] | None:
        """Whether the clock has moved against the one that nobody sets."""
        wall, steady = self.clock(), self.steady()
        offset = wall - steady
        by = 0 if self._offset is None else offset - self._offset
        self._offset, self._latest = offset, max(self._latest, wall)
        if abs(by) < _STEP_NS:
            return None
        return {"from": timestamp(wall - by), "to": timestamp(wall), "by_ms": by // 1_000_000}

    # --- what the ledger is told

    def _tell(self, now: float) -> None:
        """Of what is required: that it is unhealthy, once, and that it is well again."""
        settling = now - self._began < _UNREADY_S
        bad: dict[str, Fault] = {}
        for fault in self.faults:
            if fault.part in self.require and not (fault.unready and settling):
                bad.setdefault(fault.part, fault)
        for part, fault in bad.items():
            if part not in self._told:
                said = {"part": part, "code": fault.code, "message": fault.message}
                if (seq := self._enter(entry_types.AUDIT_UNHEALTHY, said)) is not None:
                    self._told[part] = seq
        waiting = {fault.part for fault in self.faults}
        for part in [one for one in self._told if one not in waiting]:
            if self._enter(entry_types.AUDIT_RECOVERED, {"part": part, "unhealthy": self._told[part]}) is not None:
                del self._told[part]

    def _enter(self, kind: str, data: Mapping[str, object]) -> int | None:
        try:
            return self.ledger.entry(kind, self.actor(), data).receipt.seq
        except Refused:
            return None  # it is told the next time
