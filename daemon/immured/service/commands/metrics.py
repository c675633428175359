"""`metrics`: whether all that was decided and executed is in the ledger, and what went wrong (docs/metrics.md)."""

from __future__ import annotations

from typing import Final

from immured.errors import Refused
from immured.service.commands import CommandSpec
from immured.service.context import Service
from immured.service.request import Answer, Request
from immured.wire.strict import take

__all__ = ["COMMANDS"]


async def metrics(service: Service, request: Request) -> Answer:
    """args: none. result: `audit_ok` and `sec_inc` (docs/protocol.md)."""
    take(request.command.args, "args", ())
    try:
        return Answer(await service.metrics.measure())
    except OSError as error:
        raise Refused(
            "ledger_unreadable", f"the ledger's files cannot be read: {error.strerror}", "see `immure ledger verify`"
        ) from error


COMMANDS: Final = (CommandSpec("metrics", "metrics", metrics),)
