"""Which row is about which bars, in the order in which they are measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bench.ground import Ground, Part
from bench.rows import (
    appends,
    authorise,
    batches,
    calls,
    command,
    dying,
    filtering,
    filters,
    flood,
    forks,
    idle,
    latency,
    live,
    opening,
    pipeline,
    proving,
    sandboxes,
    spread,
    throughput,
    transfers,
    verifying,
)

__all__ = ["ROWS", "Row"]

Row = Callable[[Ground], Part]

ROWS: Final[tuple[tuple[tuple[str, ...], Row], ...]] = (
    (("idle",), idle.measure),
    (("burst", "sporadic", "cpu"), latency.measure),
    (("throughput",), throughput.measure),
    (("flood",), flood.measure),
    (("live", "memory"), live.measure),
    (("create", "exec"), sandboxes.measure),
    (("many", "many-create", "many-kill"), sandboxes.measure_many),
    (("batch",), batches.measure),
    (("fork",), forks.measure),
    (("put", "get"), transfers.measure_files),
    (("stream",), transfers.measure_stream),
    (("call", "open"), calls.measure),
    (("compile",), filters.measure),
    (("authorise",), authorise.measure),
    (("pipeline", "pipeline-new"), pipeline.measure),
    (("command",), command.measure),
    (("appends", "append"), appends.measure),
    (("verify",), verifying.measure),
    (("prove",), proving.measure),
    (("filter",), filtering.measure),
    (("ledger-open", "ledger-open-memory"), opening.measure),
    (("spread",), spread.measure),
    (("dying",), dying.measure),
)
