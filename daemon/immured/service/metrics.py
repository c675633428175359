"""METRIC-AUDIT-OK and METRIC-SEC-INC: what others counted, beside what the ledger's files hold. docs/metrics.md.

The ledger is read from its files and verified on the way, in a thread, from where the last reading ended: what is not
there, or behind damage, is no record, whatever this process believes to have written.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from immured.ledger.chain import Chain
from immured.ledger.checkpoint import Checkpoint
from immured.ledger.completeness import Completeness
from immured.ledger.entry import MAX_LINE, Entry
from immured.ledger.entry_types import DAEMON_STARTED
from immured.ledger.incidents import Incidents
from immured.ledger.reader import Problem, Standing, begin
from immured.ledger.scan import swift
from immured.ledger.segments import Files
from immured.ledger.tally import Tally

if TYPE_CHECKING:
    from immured.isolation.messages import Counts
    from immured.service.context import Service
    from immured.service.decided import Seen

__all__ = ["Metrics", "counted_so_far"]

_ANSWER_S: Final = 5.0
_WRITTEN_S: Final = 5.0
_LOOK_S: Final = 0.002
_SHOWN: Final = 16
_COUNT: Final = "count"
_PAYLOADS: Final = "payloads"


class _Counting(Protocol):
    def counts(self) -> Awaitable[Counts]: ...


async def _counts(launcher: _Counting) -> tuple[Counts | None, str]:
    """Or why there are none."""
    from immured.isolation.launcher import LauncherLostError

    try:
        async with asyncio.timeout(_ANSWER_S):
            return await launcher.counts(), ""
    except (LookupError, LauncherLostError) as error:
        return None, str(error)
    except TimeoutError:
        return None, f"the launcher has not answered for {_ANSWER_S:g} s"


async def counted_so_far(launcher: _Counting) -> dict[str, object]:
    """What `daemon.started` says of the launcher's count: from there on a ledger can be held against it."""
    counts, _ = await _counts(launcher)
    return {} if counts is None else {"launcher": {_COUNT: counts.id, _PAYLOADS: counts.ran}}


@dataclass(slots=True)
class _Reading:
    """How far the ledger was read, and what was found. `began`: the launcher's count at the first entry of the window;
    None where no entry says it."""

    standing: Standing
    tally: Tally
    incidents: Incidents
    complete: Completeness
    began: int | None
    count: str
    problem: Problem | None = None


class Metrics:
    """Measures when asked, once at a time."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._turn = asyncio.Lock()
        self._reading: _Reading | None = None

    async def measure(self) -> dict[str, object]:
        """The result of `metrics` (docs/protocol.md). Raises OSError, where the ledger's files cannot be read."""
        async with self._turn:
            counts, unknown = await _counts(self._service.launcher)
            # From here to `end` nothing is waited for: what was counted by now has its entry before `end`, or none.
            seen, end = self._service.decided.seen(), self._service.ledger.end
            reading = await asyncio.to_thread(self._read, counts, end)
        return _result(counts, unknown, seen, reading)

    def _read(self, counts: Counts | None, end: int) -> _Reading:
        ledger = self._service.ledger
        ledger.flush()
        with Files.open(self._service.state.paths.ledger) as files:
            deadline = time.monotonic() + _WRITTEN_S
            while files.size() < end and ledger.failure is None and time.monotonic() < deadline:
                time.sleep(_LOOK_S)
            end = min(end, files.size())
            signed = ledger.durable.covered
            heads = {signed[0].size: signed[0]} if signed is not None and signed[1] <= end else {}
            reading = self._reading
            count = "" if counts is None else counts.id
            if reading is None or reading.problem is not None or reading.count != count:
                reading = self._begin(files, end, count)
            self._reading = reading
            if reading.problem is None and reading.standing.end < end:
                _on(reading, files, heads, end)
        return reading

    def _begin(self, files: Files, end: int, count: str) -> _Reading:
        """Find where the window begins: at the first daemon that named this count; of decisions, at this daemon."""
        boot, ours = self._service.boot.hex(), 0
        began: int | None = None
        paid: object = None

        def see(entry: Entry) -> None:
            nonlocal began, paid, ours
            said = entry.data.get("launcher")
            if began is None and count and isinstance(said, Mapping) and said.get(_COUNT) == count:
                began, paid = entry.seq, said.get(_PAYLOADS)
            if entry.data.get("boot") == boot:
                ours = entry.seq

        begun = begin(files, files.start, {})
        if isinstance(begun, Problem):
            return self._fresh(Standing(Chain()), 0, 0, None, count, files.placed(begun))
        found = swift(files, end, {}, see, begun, wanted={DAEMON_STARTED})
        begun = begin(files, files.start, {})  # the chain of the other went on
        assert isinstance(begun, Standing)  # noqa: S101 - it was a moment ago
        first = ours if began is None else began
        reading = self._fresh(begun, first, ours, paid if isinstance(paid, int) else None, count, None)
        if found.problem is not None:
            reading.problem = files.placed(found.problem)
        return reading

    def _fresh(
        self, standing: Standing, first: int, ours: int, began: int | None, count: str, problem: Problem | None
    ) -> _Reading:
        from immured.service.commands import load_commands

        tally = Tally(first, ours, frozenset(load_commands()))
        return _Reading(standing, tally, Incidents(), Completeness(first=first), began, count, problem)


def _on(reading: _Reading, files: Files, heads: Mapping[int, Checkpoint], end: int) -> None:
    def see(entry: Entry) -> None:
        reading.tally.visit(entry)
        if entry.seq >= reading.tally.executions_from:
            reading.incidents.visit(entry)
            reading.complete.visit(entry)

    was = reading.standing
    found = swift(files, end, heads, see, was)
    covered, covered_end = max((was.covered, was.covered_end), (found.covered, found.end))
    reading.standing = Standing(found.chain, found.end, _last_line(files, found.end), covered, covered_end)
    if found.problem is not None:
        reading.problem = files.placed(found.problem)


def _last_line(files: Files, end: int) -> int:
    """Where the line begins that ends there: it is the one to blame, should the next not link to it."""
    start = max(files.start, end - MAX_LINE - 1)
    return start + files.read(start, end - start).rfind(b"\n", 0, -1) + 1


def _result(counts: Counts | None, unknown: str, seen: Seen, reading: _Reading) -> dict[str, object]:
    executions = _executions(counts, unknown, reading)
    decisions = _decisions(seen, reading.tally)
    faults = reading.complete.report().faults
    incomplete = [fault.seq for fault in faults]
    counted = _whole(executions["counted"]) + _whole(decisions["counted"])
    recorded = _whole(executions["recorded"]) + _whole(decisions["recorded"])
    incidents = reading.incidents.to_list()
    if missing := _whole(executions["missing"]) + _whole(decisions["missing"]):
        incidents.insert(0, {"class": "unrecorded", "severity": "critical", "count": missing})
    ledger: dict[str, object] = {"entries": reading.standing.chain.size, "covered": reading.standing.covered}
    if reading.problem is not None:
        ledger["problem"] = str(reading.problem)
    return {
        "audit_ok": {
            "counted": counted,
            "recorded": max(0, recorded - len(incomplete)),
            "incomplete": len(incomplete),
            **({"incomplete_first": incomplete[0]} if incomplete else {}),
            "executions": executions,
            "decisions": decisions,
            "ledger": ledger,
        },
        "sec_inc": incidents,
    }


def _executions(counts: Counts | None, unknown: str, reading: _Reading) -> dict[str, object]:
    tally = reading.tally
    if counts is None or reading.began is None:
        why = unknown or "no entry says where the launcher's count began"
        return {"counted": 0, "recorded": 0, "missing": 0, "unknown": why}
    counted = max(0, counts.ran - reading.began)
    recorded = min(counted, tally.executions)
    return {
        "counted": counted,
        "recorded": recorded,
        "missing": counted - recorded,
        "open": tally.open,
        "lost": tally.lost,
        "never_ran": tally.never,
        "count": counts.id,
        "since_ms": counts.since_ns // 1_000_000,
        **_range(tally.executions_from, tally.last),
    }


def _decisions(seen: Seen, tally: Tally) -> dict[str, object]:
    found = tally.decisions_without(seen.under_way)
    missing = {cmd: count - min(count, found[cmd]) for cmd, count in sorted(seen.decided.items())}
    missing = {cmd: count for cmd, count in missing.items() if count}
    counted = sum(seen.decided.values())
    lacking = [
        {"cmd": cmd, "payload": payload}
        for cmd, payload in seen.recent
        if cmd in missing and not tally.knows(payload)
    ]  # fmt: skip
    return {
        "counted": counted,
        "recorded": counted - sum(missing.values()),
        "missing": sum(missing.values()),
        **({"missing_by_command": missing, "missing_first": lacking[:_SHOWN]} if missing else {}),
        "reads": seen.reads,
        "undecided": seen.undecided,
        "bounded": seen.bounded,
        **_range(tally.decisions_from, tally.last),
    }


def _range(first: int, last: int | None) -> dict[str, object]:
    return {"first": first, "last": first if last is None else max(first, last)}


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
