"""`status`: what the daemon is, what it can enforce, what lives."""

from __future__ import annotations

from dataclasses import fields
from typing import Final

import immured
from immured.identity.policy.warrant import HOST, Target
from immured.identity.quotas import Quota
from immured.ledger import LedgerStatus
from immured.service.commands import CommandSpec
from immured.service.context import Service
from immured.service.request import Answer, Request
from immured.service.seen import seen
from immured.wire.strict import take

__all__ = ["COMMANDS"]


def quota_used(service: Service, tenant: str) -> dict[str, object]:
    """For each share `used`, and `limit` where there is one. Nothing is used of `wall`: it is what one may ask."""
    share, used = service.authority.policy.quota(tenant), service.shares.used(tenant)
    found: dict[str, object] = {}
    for field in fields(Quota):
        limit = None if share is None else getattr(share, field.name)
        row = {"used": used[field.name]} if field.name in used else {}
        if limit is not None:
            row["limit"] = limit
        if row:
            found[field.name] = row
    return found


def _exports(service: Service, *, everything: bool) -> dict[str, object]:
    """Where the ledger is copied to, how far, and what is wrong: for whoever reaches the host."""
    exports = service.exports
    return {"exports": exports.to_map()} if everything and exports is not None and exports.all else {}


def _witnesses(service: Service, *, everything: bool) -> dict[str, object]:
    """Who cosigns the ledger's checkpoints, how far, and what is wrong: for the same."""
    witnesses = service.witnesses
    return {"witnesses": witnesses.to_map()} if everything and witnesses is not None and witnesses.all else {}


def _health(service: Service, *, everything: bool) -> dict[str, object]:
    """What is wrong with the record, and what of it keeps new intents out: for the same."""
    return {"health": service.health.to_map()} if everything and service.health is not None else {}


def _files(service: Service, ledger: LedgerStatus, *, everything: bool) -> dict[str, object]:
    """What of the ledger is kept, in how many sealed files, and what stands in the way: for the same."""
    if not everything:
        return {}
    troubles = {"sealing": ledger.rotation_failure}
    if service.retaining is not None:
        troubles |= {"retention": service.retaining.failure, "append_only": service.retaining.unfixed}
    return {"first": ledger.first, "segments": ledger.segments, **{name: why for name, why in troubles.items() if why}}


async def status(service: Service, request: Request) -> Answer:
    """args: none. result: `version`, `daemon`, `started_ms`, `stopping`, `host`, `ledger`, `manifests`, `default`,
    `identity` (`policy`, and for whoever reaches the host the replay record's measure), `quota` (what the tenant uses
    and may), `live` (how many runs) and `runs`: those that the actor may see; `manifests` are those that it may name.
    """
    take(request.command.args, "args", ())
    ledger = service.ledger.status()
    runs = [run.to_map() for run in seen(request.warrant, service.registry)]
    tenant, everybodys = request.actor.tenant, Target(HOST, "", ())
    manifests = service.manifests.digests(tenant)
    return Answer(
        {
            "version": immured.__version__,
            "daemon": service.keys.id,
            "started_ms": service.started_ms,
            "stopping": service.stopping,
            "host": service.launcher.facts.to_map(),
            "ledger": {
                "origin": ledger.origin,
                "entries": ledger.entries,
                "bytes": ledger.bytes,
                "failure": ledger.failure,
                **({"durability": ledger.durability} if ledger.durability != "full" else {}),
                **_files(service, ledger, everything=request.warrant.covers(everybodys)),
                **_exports(service, everything=request.warrant.covers(everybodys)),
                **_witnesses(service, everything=request.warrant.covers(everybodys)),
                **_health(service, everything=request.warrant.covers(everybodys)),
            },
            "identity": {
                **(service.replay.measure() if request.warrant.covers(everybodys) else {}),
                "policy": service.authority.policy.digest,
            },
            "quota": quota_used(service, tenant),
            "manifests": manifests,
            "default": service.state.default.digest,
            "live": len(runs),
            "runs": runs[:1000],
        }
    )


COMMANDS: Final = (CommandSpec("status", "status", status),)
