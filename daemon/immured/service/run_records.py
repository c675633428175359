"""What is said of a run: to the ledger before it, to the client and to the ledger after it. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from immured.isolation.compile import Compiled
from immured.service.arguments import RunArguments
from immured.service.collect import Collected
from immured.service.request import Request
from immured.wire.messages import StreamRecord

__all__ = ["intent_data", "outcome_data", "result_map"]

_MEASURED: Final = ("cause", "exit_code", "signal", "usage", "events", "failure")


def intent_data(request: Request, arguments: RunArguments, compiled: Compiled, sandbox: str) -> dict[str, object]:
    """`data` of run.accepted. Of the environment and of files only the names: values may be secrets."""
    data: dict[str, object] = {
        **request.to_map(),
        "sandbox": sandbox,
        "argv": arguments.argv,
        "manifest": compiled.manifest.digest,
        "plan": compiled.plan.digest,
        "enforcement": compiled.enforcement,
    }
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
    return data


def result_map(
    sandbox: str,
    compiled: Compiled,
    measured: Mapping[str, object],
    captured: Mapping[str, bytes],
    records: Mapping[str, StreamRecord],
    collected: Collected,
) -> dict[str, object]:
    """`result` of the reply. `measured` is what `isolation.outcome.result_fields` made of the launcher's report."""
    result: dict[str, object] = {"sandbox": sandbox, **measured, **captured}
    result["streams"] = {name: record.to_map() for name, record in {**records, **collected.streams}.items()}
    if collected.files:
        result["files"] = collected.files
    if collected.failed:
        result["uncollected"] = collected.failed
    result["violations"] = []
    result["enforcement"] = compiled.enforcement
    return result


def outcome_data(
    intent: int, result: Mapping[str, object], records: Mapping[str, StreamRecord], collected: Collected
) -> dict[str, object]:
    """`data` of run.finished: the result without what was written, which enters by digest."""
    data: dict[str, object] = {"sandbox": result["sandbox"], "intent": intent}
    data |= {name: result[name] for name in _MEASURED if name in result}
    data["streams"] = {name: _record(record) for name, record in {**records, **collected.streams}.items()}
    if collected.files:
        data["files"] = {
            path: {"length": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for path, content in collected.files.items()
        }
    return data


def _record(record: StreamRecord) -> dict[str, object]:
    if record.passed:
        return {"passed": True}
    return {"length": record.length, "sha256": record.sha256.hex()}
