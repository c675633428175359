"""A command that changes who may do what: checked, entered, durable, in force; one after the other.

What is checked must still be so when it is entered, so that no two such commands are under way at a time; and a command
that was admitted by a policy or a key that changed while it waited is to be sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from immured.errors import Refused
from immured.service.context import Service, log
from immured.service.request import Request
from immured.service.state import save_keyring
from immured.wire.messages import Receipt

__all__ = ["decide", "deciding"]


@asynccontextmanager
async def deciding(service: Service, request: Request) -> AsyncIterator[None]:
    """One's turn. Raises Refused `busy` where what admitted the command is not what stands by now."""
    record = request.actor.root
    async with service.deciding:
        if service.authority.policy is not request.warrant.policy or service.authority.find(record.id) is not record:
            raise Refused("busy", "the policy, or this key, was just changed", "send it again")
        yield


async def decide(service: Service, request: Request, kind: str, data: Mapping[str, object]) -> Receipt:
    """Enter it; once it is durable, it is so. Raises Refused `ledger_unavailable`: nothing changed then."""
    authority = service.authority
    keyring = authority.keyring
    pending = service.ledger.entry(kind, request.actor.to_map(), {**request.to_map(), **data})
    durable = await pending.durable()
    request.acted = True
    request.claim.outcome = receipt = Receipt(durable.seq, durable.leaf)
    authority.apply(kind, data, receipt.seq)
    if authority.keyring is not keyring:
        try:
            await asyncio.to_thread(save_keyring, service.state.paths, authority.keyring)
        except OSError as error:
            # In force, and in the ledger, from which the next start puts it into the file.
            log.error("keyring.json was not written: %s", error)
    return receipt
