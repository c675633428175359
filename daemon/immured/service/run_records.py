"""What is said of a run: to the ledger before it, to the client and to the ledger after it. Pure."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Final, cast

from immured.isolation.compile import Compiled
from immured.service.arguments import RunArguments
from immured.service.collect import Collected
from immured.service.request import Request
from immured.wire.messages import StreamRecord

__all__ = ["bounded_violations", "intent_data", "outcome_data", "result_map"]

_VIOLATION_ROOM: Final = 24 * 1024
"""Bytes of JSON in a run.finished entry, of 65,535."""
_MEASURED: Final = ("cause", "exit_code", "signal", "usage", "events", "failure")


def intent_data(
    request: Request, arguments: RunArguments, compiled: Compiled, names: Mapping[str, str], entry: int | None
) -> dict[str, object]:
    """`data` of run.accepted and exec.accepted. Of the environment and of files only names: values may be secrets.

    `entry`: the index of the entry that has the manifest, None where it is built in.
    """
    data: dict[str, object] = {
        **request.to_map(),
        **names,
        "argv": arguments.argv,
        "manifest": compiled.manifest.digest,
        "plan": compiled.plan.digest,
        "enforcement": compiled.enforcement,
    }
    if entry is not None:
        data["manifest_entry"] = entry
    if compiled.manifest.given:
        data["parameters"] = dict(compiled.manifest.given)
    if arguments.cwd is not None:
        data["cwd"] = arguments.cwd
    named: dict[str, tuple[object, ...]] = {
        "env": tuple(arguments.env),
        "files": tuple(arguments.files),
        "collect": arguments.collect,
        "fds": arguments.fds,
    }
    data |= {name: values for name, values in named.items() if values}
    if arguments.detach:
        data["detach"] = True
    if arguments.learn:
        data["learn"] = True
    return data


def result_map(
    names: Mapping[str, str],
    compiled: Compiled,
    measured: Mapping[str, object],
    captured: Mapping[str, bytes],
    records: Mapping[str, StreamRecord],
    collected: Collected,
    violations: Sequence[Mapping[str, object]] = (),
) -> dict[str, object]:
    """`result` of the reply. `names` says of what; `measured` is what `isolation.outcome.result_fields` made of the
    launcher's report."""
    result: dict[str, object] = {**names, **measured, **captured}
    result["streams"] = {name: record.to_map() for name, record in {**records, **collected.streams}.items()}
    if collected.files:
        result["files"] = collected.files
    if collected.failed:
        result["uncollected"] = collected.failed
    result["violations"] = violations
    result["enforcement"] = compiled.enforcement
    return result


def outcome_data(
    intent: int,
    result: Mapping[str, object],
    records: Mapping[str, StreamRecord],
    collected: Collected,
    names: Mapping[str, str] | None = None,
) -> dict[str, object]:
    """`data` of run.finished and exec.finished: the result without what was written, which enters by digest."""
    data: dict[str, object] = {**(names or {"sandbox": result["sandbox"]}), "intent": intent}
    data |= {name: result[name] for name in _MEASURED if name in result}
    data["streams"] = {name: _record(record) for name, record in {**records, **collected.streams}.items()}
    if violations := bounded_violations(result["violations"]):
        data["violations"] = violations
    if collected.files:
        data["files"] = {
            path: {"length": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for path, content in collected.files.items()
        }
    return data


def bounded_violations(violations: object) -> list[Mapping[str, object]]:
    """As many rows as an entry has room for beside the rest, and how many there were of what is left out. A remedy says
    nothing that its rule does not, and stays in the reply."""
    kept: list[Mapping[str, object]] = []
    left: dict[str, int] = {}
    room = _VIOLATION_ROOM
    for row in cast("Sequence[Mapping[str, object]]", violations):
        kind = str(row["kind"])
        if "count" in row:
            left[kind] = cast("int", row["count"])
            continue
        short = {name: value for name, value in row.items() if name != "remedy"}
        room -= len(json.dumps(short, default=_escaped))
        if room >= 0:
            kept.append(short)
        elif kind not in left:
            left[kind] = sum(1 for one in cast("Sequence[Mapping[str, object]]", violations) if one["kind"] == kind)
    return [*kept, *({"kind": kind, "count": count} for kind, count in left.items())]


def _escaped(value: object) -> str:
    """Bytes that are no text, as long as the ledger writes them."""
    return base64.b64encode(cast("bytes", value)).decode() + '{"b64": ""}'


def _record(record: StreamRecord) -> dict[str, object]:
    if record.passed:
        return {"passed": True}
    return {"length": record.length, "sha256": record.sha256.hex()}
