"""`status`: what the daemon is, what it can enforce, what lives."""

from __future__ import annotations

from typing import Final

import immured
from immured.identity.authorise import Permission, may
from immured.service.commands import CommandSpec
from immured.service.context import Service
from immured.service.request import Answer, Request
from immured.wire.strict import take

__all__ = ["COMMANDS"]


async def status(service: Service, request: Request) -> Answer:
    """args: none. result: `version`, `daemon`, `started_ms`, `stopping`, `host`, `ledger`, `manifests`, `default`,
    `live` (how many sandboxes) and `runs`: one's own, or everybody's for a key that may end them.
    """
    take(request.command.args, "args", ())
    ledger = service.ledger.status()
    everybody = may(request.actor, Permission.KILL_ANY)
    runs = [run.to_map() for run in service.registry if everybody or run.key_id == request.actor.key_id]
    return Answer(
        {
            "version": immured.__version__,
            "daemon": service.state.key.id,
            "started_ms": service.started_ms,
            "stopping": service.stopping,
            "host": service.launcher.facts.to_map(),
            "ledger": {
                "origin": ledger.origin,
                "entries": ledger.entries,
                "bytes": ledger.bytes,
                "failure": ledger.failure,
            },
            "manifests": sorted(service.state.manifests),
            "default": service.state.default.digest,
            "live": len(service.registry),
            "runs": runs[:1000],
        }
    )


COMMANDS: Final = (CommandSpec("status", Permission.STATUS, "ask for the daemon's status", status),)
