"""`run`: one command in one sandbox, from the arguments to the signed result.

arguments -> plan -> the launcher prepares a cell, while the intent goes to the ledger -> both: go -> the outcome,
measured -> the outcome to the ledger -> the result
"""

from __future__ import annotations

import os
from collections.abc import Awaitable
from typing import Final

from immured.errors import Refused
from immured.isolation.abi import Cause
from immured.isolation.launcher import Outcome
from immured.ledger import entry_types
from immured.service.arguments import parse_run
from immured.service.commands import CommandSpec
from immured.service.context import Service
from immured.service.descriptors import check_descriptors
from immured.service.execution import Execution, Words
from immured.service.planning import plan_run
from immured.service.request import Answer, Request
from immured.service.run_records import intent_data
from immured.service.storage import volume_names
from immured.service.streams import open_streams

__all__ = ["COMMANDS"]

_WORDS: Final = Words(entry_types.RUN_ACCEPTED, entry_types.RUN_FINISHED, entry_types.RUN_LOST)


def run(service: Service, request: Request) -> Awaitable[Answer]:
    """args and result: docs/protocol.md, run.

    Called, it has sent the plan and queued the intent when it returns: whatever follows on the connection, a data frame
    of its stdin or the connection's end, finds it there. Raises Refused where nothing was begun.
    """
    if service.stopping:
        raise Refused("stopping", "the daemon is stopping", "ask again when it is back")
    arguments = parse_run(request.command.args)
    check_descriptors(request.descriptors.fds, arguments.fds)
    service.check_cells(1)
    live = service.registry.open(request.actor, service.clock(), arguments.shown)
    log = None
    try:
        compiled = plan_run(service, request.warrant, arguments, live.sandbox)
        entry = service.manifests.enter(compiled.manifest)
        live.of_class(compiled.manifest.class_)
        live.lease = service.shares.run(request.actor.tenant, compiled.manifest.limits)
        volumes = volume_names(compiled.manifest)
        service.storage.volumes.hold(request.actor.tenant, volumes, live.sandbox)
        log = _open_log() if arguments.learn else None
        streams = open_streams(
            service.feeds,
            request,
            arguments,
            compiled.manifest.limits.output,
            lambda: live.kill(Cause.OUTPUT_LIMIT),
        )
    except BaseException:
        if log is not None:
            os.close(log)
        service.storage.volumes.release(live.sandbox)
        service.registry.close(live)
        raise

    def send() -> Awaitable[Outcome]:
        return service.launcher.prepare(
            live.number,
            request.channel.number,
            compiled.plan.pack(),
            streams.payload_ends,
            ours=[place for place in (0, 1, 2) if place not in arguments.fds],
            log=log,
        )

    execution = Execution(
        service,
        request,
        arguments,
        compiled,
        live,
        streams,
        words=_WORDS,
        data=intent_data(request, arguments, compiled, live.names, entry),
        send=send,
        log=log,
    )
    execution.begin()
    return _with_volumes(service, live.sandbox, execution.finish()) if volumes else execution.finish()


async def _with_volumes(service: Service, sandbox: str, ending: Awaitable[Answer]) -> Answer:
    try:
        return await ending
    finally:
        service.storage.volumes.release(sandbox)


def _open_log() -> int:
    try:
        return os.memfd_create("immured-learned", os.MFD_CLOEXEC)
    except OSError as error:
        raise Refused("busy", f"no memory for the log: {error.strerror}", "try again when some runs ended") from error


COMMANDS: Final = (CommandSpec("run", "run", run, takes_descriptors=True),)
