"""`daemon.rotate`: another key for the daemon itself."""

from __future__ import annotations

import asyncio
from typing import Final

from immured.errors import Refused
from immured.ledger import entry_types
from immured.service import daemon_keys
from immured.service.commands import CommandSpec
from immured.service.context import Service, log
from immured.service.daemon_keys import Rotation
from immured.service.deciding import decide, deciding
from immured.service.request import Answer, Request
from immured.wire.keys import PrivateKey
from immured.wire.strict import take

__all__ = ["COMMANDS"]

DEFAULT_OVERLAP_MS: Final = 7 * 24 * 3600 * 1000
MAX_OVERLAP_MS: Final = 90 * 24 * 3600 * 1000


async def rotate(service: Service, request: Request) -> Answer:
    """args: `overlap_ms` (how long the old key signs beside the new one, and is an audience; default a week). result:
    `daemon` (the new id), `public` (hex), `previous` (id), `until_ms`."""
    fields = take(request.command.args, "args", ("overlap_ms",))
    overlap = fields.integer("overlap_ms", 0, MAX_OVERLAP_MS)
    async with deciding(service, request):
        keys, paths, now = service.keys, service.state.paths, service.clock()
        if keys.former is not None:
            raise Refused(
                "wrong_state",
                f"the last rotation is not over: {keys.former.id} still signs",
                "wait until its overlap is over",
                details={"until_ms": keys.until_ms},
            )
        old, new = keys.current, PrivateKey.generate()
        until = now + (DEFAULT_OVERLAP_MS if overlap is None else overlap)
        keys.upcoming += (new.public,)
        try:
            await asyncio.to_thread(daemon_keys.begin, paths, old, new, keys.known)
        except OSError as error:
            raise Refused(
                "storage_failed", f"the new key could not be kept: {error.strerror}", "see the state directory's disk"
            ) from error
        entered = Rotation(new.public, old.public, until).to_map(new, old)
        try:
            receipt = await decide(service, request, entry_types.DAEMON_KEY_ROTATED, entered)
        except Refused:
            # It may be on the disk all the same: the next start goes by what it finds in the ledger.
            log.error("the daemon's key stays %s: the ledger took no entry", old.id)
            raise
        try:
            await asyncio.to_thread(daemon_keys.finish, paths, old, new, overlap=until > now)
        except OSError as error:
            log.error("the daemon's new key has not got its name yet, which the next start sees to: %s", error)
        service.rekey(new, old, until)
    result = {"daemon": new.id, "public": new.public.raw.hex(), "previous": old.id, "until_ms": until}
    return Answer(result, receipt)


COMMANDS: Final = (CommandSpec("daemon.rotate", "daemon.rotate", rotate),)
