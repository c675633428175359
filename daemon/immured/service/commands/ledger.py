"""`ledger.prove`, `ledger.checkpoint`: what a client can check without trusting the daemon that told it.
`ledger.rotate_key`: another key for the ledger's signed heads."""

from __future__ import annotations

import asyncio
from typing import Final

from immured.errors import ConfigurationError, Refused
from immured.ledger import key_change
from immured.ledger.entry import Entry, LineError
from immured.ledger.keys import VERIFIER_KEYS, KeyFiles, load_vkeys
from immured.ledger.proving import NoEntry, NoProof
from immured.service.commands import CommandSpec
from immured.service.context import Service, log
from immured.service.deciding import deciding
from immured.service.entry_targets import target_of
from immured.service.request import Answer, Request
from immured.wire.messages import Receipt
from immured.wire.strict import take

__all__ = ["COMMANDS"]

_MAX_SEQ: Final = 2**53 - 1


async def prove(service: Service, request: Request) -> Answer:
    """args: `seq`. result: `seq`, `proof` (a tlog-proof, bin), `keys` (the ledger's verifier keys, newest last).
    `not_found` for an entry that is not there, or that one may not see; `proof_unavailable` where there is none yet."""
    fields = take(request.command.args, "args", ("seq",))
    seq = fields.integer("seq", 0, _MAX_SEQ)
    if seq is None:
        raise fields.wrong("seq", "is missing")
    hidden = Refused("not_found", f"no entry {seq} that you may see", "a receipt names its own entry's seq")
    covers = request.warrant.covers
    covers(request.warrant.place())  # where there is nothing, it was asked all the same
    if seq >= service.ledger.status().entries:
        raise hidden
    try:
        found = await service.proofs.entries(seq)
        begun = {one.seq: one for one in found}
        if not covers(target_of(found[0], request.actor, lambda intent: _known(begun, intent))):
            raise hidden
        proof = await service.proofs.prove(seq)
        keys = await asyncio.to_thread(load_vkeys, service.state.paths.keys / VERIFIER_KEYS)
    except NoEntry as error:
        raise hidden from error
    except NoProof as error:
        raise _unavailable(str(error)) from error
    except (OSError, LineError, ConfigurationError) as error:
        raise _unavailable(str(error)) from error
    return Answer({"seq": seq, "proof": proof.encode(), "keys": [key.encode() for key in keys]})


def _known(begun: dict[int, Entry], intent: int) -> Entry:
    if intent not in begun:
        raise NoEntry(f"entry {intent} is not kept any more")
    return begun[intent]


def _unavailable(what: str) -> Refused:
    return Refused("proof_unavailable", what, "ask again in a minute, or have the operator run `immure ledger prove`")


async def checkpoint(service: Service, request: Request) -> Answer:
    """args: none. result: `checkpoint` (the newest signed head, bin), `witnessed` (the newest that witnesses cosigned,
    where there is one), `keys`."""
    take(request.command.args, "args", ())
    try:
        note, cosigned = await service.proofs.newest()
        keys = await asyncio.to_thread(load_vkeys, service.state.paths.keys / VERIFIER_KEYS)
    except (NoProof, OSError, ConfigurationError) as error:
        raise _unavailable(str(error)) from error
    result: dict[str, object] = {"checkpoint": note, "keys": [key.encode() for key in keys]}
    return Answer(result if cosigned is None else {**result, "witnessed": cosigned})


async def rotate_key(service: Service, request: Request) -> Answer:
    """args: none. result: `old`, `new` (verifier keys). From the next signed head on the new one signs."""
    take(request.command.args, "args", ())
    files = KeyFiles(service.state.paths.keys)
    async with deciding(service, request):
        try:
            pending, rotation = await asyncio.to_thread(
                key_change.begin, service.ledger, files, request.actor.to_map(), request.to_map()
            )
        except OSError as error:
            raise Refused(
                "storage_failed", f"the new key could not be kept: {error.strerror}", "see the state directory's disk"
            ) from error
        durable = await pending.durable()
        request.acted = True
        request.claim.outcome = receipt = Receipt(durable.seq, durable.leaf)
        try:
            done = await asyncio.to_thread(key_change.finish, service.ledger, files)
        except (OSError, ConfigurationError) as error:
            log.error("the ledger's new key has not got its place yet, which the next start sees to: %s", error)
        else:
            if not done:
                log.error("both of the ledger's keys sign on: no head could be signed yet")
    return Answer({"old": rotation.old.encode(), "new": rotation.new.encode()}, receipt)


COMMANDS: Final = (
    CommandSpec("ledger.prove", "ledger.prove", prove),
    CommandSpec("ledger.checkpoint", "ledger.checkpoint", checkpoint),
    CommandSpec("ledger.rotate_key", "ledger.rotate_key", rotate_key),
)
