"""What a command came to, once its payload is dead: streams drained, files brought back, figures put into words."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol

from immured.isolation.abi import MAX_LEARNED
from immured.isolation.learned import learned_map
from immured.isolation.outcome import result_fields
from immured.isolation.violations import violation_rows
from immured.service.collect import Collected, collect
from immured.service.run_records import result_map
from immured.wire.frames import MAX_FRAME

if TYPE_CHECKING:
    from immured.isolation.compile import Compiled
    from immured.isolation.launcher import Outcome
    from immured.service.arguments import RunArguments
    from immured.service.channel import Channel
    from immured.service.context import Service
    from immured.wire.messages import StreamRecord

__all__ = ["PayloadStreams", "conclude"]

_DRAIN_S: Final = 2.0
_ROOM_FOR_THE_REST: Final = 128 * 1024
"""Bytes of a reply that are neither output nor files."""


class PayloadStreams(Protocol):
    """What becomes of a payload's descriptors 0, 1 and 2: `service.streams.Streams`, or a terminal's."""

    @property
    def payload_ends(self) -> tuple[int, ...]:
        """What the payload is given, until `close_payload_ends`."""

    @property
    def too_much(self) -> bool:
        """Whether there was more output than its limit."""

    @property
    def captured_bytes(self) -> int:
        """Bytes of output that the reply will carry."""

    def close_payload_ends(self) -> None:
        """The launcher has them now."""

    def captured(self) -> dict[str, bytes]:
        """What of the output the result holds itself."""

    def records(self) -> dict[str, StreamRecord]:
        """What the signed reply says of each stream."""

    async def drain(self, deadline: float) -> None:
        """The payload is dead: take what is left, until the loop's time `deadline`."""

    def close(self) -> None:
        """Close all that is still open. Twice is once."""


async def conclude(
    service: Service,
    channel: Channel,
    nonce: bytes,
    arguments: RunArguments,
    compiled: Compiled,
    names: Mapping[str, str],
    streams: PayloadStreams,
    outcome: Outcome,
    log: int | None = None,
    prefix: str = "",
) -> tuple[dict[str, object], dict[str, StreamRecord], Collected]:
    """The result (`names` says what it is of), what it says of the streams, and what was brought back. The outcome's
    files are given up, whatever happens. `prefix`: before the names of streams that files travel on."""
    collected = Collected()
    # All that was asked for was written before it was answered: nobody is left who writes.
    learned = b"" if log is None else os.pread(log, MAX_LEARNED, 0)
    try:
        await streams.drain(asyncio.get_running_loop().time() + _DRAIN_S)
        if outcome.files:
            collected = await collect(
                arguments.collect,
                outcome.files,
                room=MAX_FRAME - _ROOM_FOR_THE_REST - streams.captured_bytes - len(learned),
                re=nonce,
                channel=channel,
                prefix=prefix,
            )
    finally:
        channel.dispose(outcome.files.values())
    measured = result_fields(outcome.report, compiled.plan.steps)
    # Written before its death, and read after it: the limit was met first, and what is above it is gone.
    if streams.too_much and measured["cause"] in ("exited", "signaled"):
        measured["cause"] = "output_limit"
    violations = violation_rows(outcome.report, compiled.manifest, service.state.config.profiles)
    records = streams.records()
    result = result_map(names, compiled, measured, streams.captured(), records, collected, violations)
    if log is not None:
        result["learned"] = learned_map(learned)
    return result, records, collected
