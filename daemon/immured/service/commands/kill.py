"""`kill`: end a sandbox with everything in it."""

from __future__ import annotations

from typing import Final

from immured.errors import Refused
from immured.ledger import entry_types
from immured.service.commands import CommandSpec
from immured.service.context import Service
from immured.service.request import Answer, Request
from immured.wire.messages import Receipt
from immured.wire.strict import shown, take

__all__ = ["COMMANDS"]

_WAIT_S: Final = 5.0


async def kill(service: Service, request: Request) -> Answer:
    """args: `sandbox`. result: `sandbox`, and `ended`: whether it is over by now; its run's own reply says `killed`.

    A ledger that takes no entries keeps nobody from ending a sandbox: then there is no receipt.
    """
    sandbox = take(request.command.args, "args", ("sandbox",)).required("sandbox", str)
    warrant = request.warrant
    run = service.registry.find(request.actor.tenant, sandbox)
    if run is None and warrant.anywhere:
        run = service.registry.find_anywhere(sandbox)
    if run is None or not warrant.covers(run.target):
        raise Refused("bad_argument", f"no sandbox of yours is called {shown(sandbox)}", "`status` shows what lives")
    warrant.check(run.target)
    run.kill()
    request.acted = True
    try:
        pending = service.ledger.entry(
            entry_types.COMMAND_DONE, request.actor.to_map(), {**request.to_map(), "sandbox": sandbox}
        )
        durable = await pending.durable()
    except Refused:
        receipt = None
    else:
        request.claim.outcome = receipt = Receipt(durable.seq, durable.leaf)
    return Answer({"sandbox": sandbox, "ended": await service.registry.wait_over(run, _WAIT_S)}, receipt)


COMMANDS: Final = (CommandSpec("kill", "kill", kill),)
