"""What is said of a batch: to the ledger before and after, and to the client (docs/protocol.md, docs/ledger.md). Pure.

A batch's commands and outcomes stand in rows, as many to an entry as it holds; no row is longer than its bound, so that
the space for all outcomes can be kept before the first run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from immured.ledger.entry import Json, encode_value
from immured.service.arguments import RunArguments
from immured.service.collect import Collected
from immured.service.run_records import outcome_data
from immured.wire.messages import StreamRecord

__all__ = [
    "MAX_ROW",
    "ROWS_ROOM",
    "RUN_ROOM",
    "Conclusion",
    "bounded_row",
    "client_record",
    "command_row",
    "in_entries",
    "name_of_run",
    "outcome_row",
    "ranges",
    "size_of",
]

MAX_ROW: Final = 4_096
"""Bytes of one run's row, of JSON."""

ROWS_ROOM: Final = 48_000
"""Bytes of rows at which an entry is full: one more row may have been added."""

RUN_ROOM: Final = MAX_ROW + 1_024
"""Bytes of the ledger that a run's outcome may take: its row, and an entry around it."""

_PLAIN: Final = frozenset({"violations", "files", "failure", "events"})
"""Outcomes with none of these are short."""


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What `service.conclusion.conclude` says of a run."""

    result: dict[str, object]
    records: dict[str, StreamRecord]
    collected: Collected
    pinned: int | None = None
    """Which of the batch's executables it ran: see `Journal.pin`."""


def name_of_run(batch: str, index: int) -> str:
    """The sandbox of a batch's run: `s`, the batch's digits, the run's index in four more."""
    return f"s{batch[1:]}{index:04x}"


def command_row(arguments: RunArguments, names: Iterable[str]) -> dict[str, Json]:
    """What a run (or the batch, for all) orders in these fields. Of env and files the names, of input nothing."""
    row: dict[str, object] = {}
    for name in sorted(names):
        if name == "argv":
            row[name] = arguments.argv
        elif name == "cwd":
            row[name] = arguments.cwd
        elif name in ("env", "files"):
            row[name] = tuple(getattr(arguments, name))
        elif name == "collect":
            row[name] = arguments.collect
        elif name in ("limits", "parameters"):
            row[name] = getattr(arguments, name)
    return bounded_row({name: encode_value(value) for name, value in row.items() if value})


def outcome_row(index: int, conclusion: Conclusion) -> dict[str, Json]:
    """One run in `batch.progress`: as in `run.finished`, streams that had nothing in them left out."""
    data = outcome_data(0, conclusion.result, conclusion.records, conclusion.collected)
    del data["intent"], data["sandbox"]
    streams = cast("dict[str, dict[str, object]]", data["streams"])
    data["streams"] = {name: record for name, record in streams.items() if record.get("length")}
    if conclusion.pinned is not None:
        data["pinned"] = conclusion.pinned
    row = {"run": index, **{name: value for name, value in data.items() if value not in ({}, [])}}
    if _PLAIN.isdisjoint(row):
        return row  # type: ignore[return-value]
    return bounded_row({name: encode_value(value) for name, value in row.items()})


def bounded_row(row: dict[str, Json]) -> dict[str, Json]:
    """The row within MAX_ROW bytes: its largest members, as far as needed, by digest of their own JSON."""
    sizes = {name: size_of(value) + len(name) + 4 for name, value in row.items()}
    total = sum(sizes.values())
    for name in sorted(row, key=lambda one: sizes[one], reverse=True):
        if total <= MAX_ROW:
            break
        text = _text(row[name])
        row[name] = {"sha256": hashlib.sha256(text).hexdigest(), "len": len(text), "of": "json"}
        total += size_of(row[name]) + len(name) + 4 - sizes[name]
    return row


def size_of(value: Json) -> int:
    """Bytes of JSON, at most: what is not ASCII counts as if it were escaped."""
    return len(_text(value))


def in_entries(rows: Sequence[Mapping[str, Json]]) -> list[list[Mapping[str, Json]]]:
    """The rows, in order, as many to an entry as it has room for. Nothing for no rows."""
    entries: list[list[Mapping[str, Json]]] = []
    room = 0
    for row in rows:
        if room <= 0:
            entries.append([])
            room = ROWS_ROOM
        entries[-1].append(row)
        room -= size_of(dict(row)) + 1
    return entries


def client_record(index: int, conclusion: Conclusion, shared: Mapping[str, str]) -> dict[str, object]:
    """One run in the stream of results, but for its receipt: a run's result, its `enforcement` where it is not the
    batch's."""
    record: dict[str, object] = {"run": index, **conclusion.result}
    if record["enforcement"] == shared:
        del record["enforcement"]
    if not record["violations"]:
        del record["violations"]
    return record


def ranges(indices: Iterable[int], at_most: int = 64) -> str:
    """`3-7,9`: ascending indices in few words. After so many ranges: how many indices are left out."""
    found: list[list[int]] = []
    for index in indices:
        if found and index == found[-1][1] + 1:
            found[-1][1] = index
        else:
            found.append([index, index])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in found[:at_most]]
    left = sum(last - first + 1 for first, last in found[at_most:])
    return ",".join([*shown, f"and {left} more"] if left else shown)


def _text(value: Json) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
