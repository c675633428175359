"""Which row is about which bars, in the order in which they are measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bench.ground import Ground, Part
from bench.rows import calls, command, dying, filters, idle, latency, live, spread, throughput

__all__ = ["ROWS", "Row"]

Row = Callable[[Ground], Part]

ROWS: Final[tuple[tuple[tuple[str, ...], Row], ...]] = (
    (("idle",), idle.measure),
    (("burst", "sporadic", "cpu"), latency.measure),
    (("throughput",), throughput.measure),
    (("live", "memory"), live.measure),
    (("call", "open"), calls.measure),
    (("compile",), filters.measure),
    (("command",), command.measure),
    (("spread",), spread.measure),
    (("dying",), dying.measure),
)
