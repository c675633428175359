"""`run`: one command in one sandbox, from the arguments to the signed result.

arguments -> plan -> the intent to the ledger, while the launcher prepares a cell -> both: go -> the outcome,
measured -> the outcome to the ledger -> the result
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
from collections.abc import Awaitable, Mapping
from typing import Final

from immured.errors import ImmuredError, Refused
from immured.identity.authorise import Permission
from immured.isolation.abi import Cause, Stage
from immured.isolation.compile import Compiled
from immured.isolation.launcher import LauncherLostError, Outcome
from immured.isolation.messages import Failed
from immured.isolation.outcome import result_fields
from immured.ledger import entry_types
from immured.service.arguments import RunArguments, parse_run
from immured.service.collect import Collected, collect
from immured.service.commands import CommandSpec
from immured.service.context import Service
from immured.service.descriptors import check_descriptors
from immured.service.planning import plan_run
from immured.service.registry import LiveRun, RunState
from immured.service.request import Answer, Request
from immured.service.streams import Streams
from immured.wire.frames import MAX_FRAME
from immured.wire.messages import Receipt

__all__ = ["COMMANDS"]

_DRAIN_S: Final = 2.0
_MEASURED: Final = ("cause", "exit_code", "signal", "usage", "events", "failure")
_ROOM_FOR_THE_REST: Final = 128 * 1024
"""Bytes of a reply that are neither output nor files."""


async def run(service: Service, request: Request) -> Answer:
    """args and result: docs/protocol.md, run."""
    # Up to the first await nothing else happens on this connection: a data frame that follows finds its stream.
    if service.stopping:
        raise Refused("stopping", "the daemon is stopping", "ask again when it is back")
    arguments = parse_run(request.command.args)
    check_descriptors(request.fds, arguments.fds)
    live = service.registry.open(request.actor.key_id, request.actor.uid, service.clock(), arguments.shown)
    streams = None
    try:
        compiled = plan_run(service, request.actor, arguments, live.sandbox)
        streams = _open_streams(service, request, arguments, compiled, live)
        if not arguments.detach:
            request.channel.on_closed[live] = live.kill
            if request.channel.closed:
                raise Refused("busy", "the client is gone", "ask again, and stay; or ask for a detached run")
        return await _carry_out(service, request, arguments, compiled, live, streams)
    finally:
        request.channel.on_closed.pop(live, None)
        if streams is not None:
            streams.close()
        service.registry.close(live)


async def _carry_out(
    service: Service,
    request: Request,
    arguments: RunArguments,
    compiled: Compiled,
    live: LiveRun,
    streams: Streams,
) -> Answer:
    claim = request.claim
    intent = service.ledger.entry(
        entry_types.RUN_ACCEPTED,
        request.actor.to_map(),
        _intent(request, arguments, compiled, live),
        reserves_outcome=True,
    )
    preparing: Awaitable[Failed | None] | None = None
    trouble: Exception | None = None
    try:
        preparing = service.launcher.prepare(
            live.number, request.channel.number, compiled.plan.pack(), streams.payload_ends
        )
    except (LauncherLostError, OSError) as error:
        trouble = error
    streams.close_payload_ends()
    request.close_descriptors()
    try:
        durable = await intent.durable()
    except Refused:
        await _call_off(service, live, preparing)
        raise
    request.acted = True
    claim.intent = Receipt(durable.seq, durable.leaf)

    try:
        if trouble is not None:
            raise trouble
        assert preparing is not None  # noqa: S101 - one of the two
        outcome = await _until_over(service, live, preparing)
    except LauncherLostError as error:
        await _lost(service, request, live, error)
        raise
    except OSError as error:
        outcome = Outcome(_out_of(error))

    with outcome:
        await streams.drain(asyncio.get_running_loop().time() + _DRAIN_S)
        fields = result_fields(outcome.report, compiled.plan.steps)
        room = MAX_FRAME - _ROOM_FOR_THE_REST - streams.captured_bytes
        collected = await collect(
            arguments.collect, outcome.files, room=room, re=request.command.nonce, channel=request.channel
        )
    result = _result(live, compiled, fields, streams, collected)
    try:
        pending = service.ledger.entry(
            entry_types.RUN_FINISHED,
            service.actor,
            _outcome_data(result, durable.seq, collected),
            outcome_of=durable.seq,
        )
        finished = await pending.durable()
    except Refused as error:
        raise ImmuredError(
            "ledger_unavailable",
            f"{live.sandbox} ran and ended ({result['cause']}), and the ledger could not be told: {error.message}",
            error.remedy,
            details={"sandbox": live.sandbox, "cause": result["cause"]},
        ) from error
    claim.outcome = Receipt(finished.seq, finished.leaf)
    return Answer(result, claim.outcome, claim.intent)


async def _until_over(service: Service, live: LiveRun, preparing: Awaitable[Failed | None]) -> Outcome:
    failed = await preparing
    if failed is not None:
        return Outcome(failed)
    if not live.killed:
        live.state = RunState.RUNNING
        service.launcher.go(live.number)
    return await service.launcher.outcome(live.number)


async def _call_off(service: Service, live: LiveRun, preparing: Awaitable[Failed | None] | None) -> None:
    """The intent is not durable, so nothing may run: have the cell torn down."""
    if preparing is None:
        return
    live.kill()
    with contextlib.suppress(LauncherLostError):
        outcome = await _until_over(service, live, preparing)
        outcome.close()


async def _lost(service: Service, request: Request, live: LiveRun, error: LauncherLostError) -> None:
    assert request.claim.intent is not None  # noqa: S101 - only after the intent is durable
    seq = request.claim.intent.seq
    data = {"sandbox": live.sandbox, "intent": seq, "reason": error.message}
    with contextlib.suppress(Refused):
        durable = await service.ledger.entry(entry_types.RUN_LOST, service.actor, data, outcome_of=seq).durable()
        request.claim.outcome = Receipt(durable.seq, durable.leaf)


def _open_streams(
    service: Service, request: Request, arguments: RunArguments, compiled: Compiled, live: LiveRun
) -> Streams:
    passed = dict(zip(arguments.fds, request.fds, strict=True))
    try:
        return Streams(
            request.channel,
            request.command.nonce,
            passed=passed,
            stdin=arguments.stdin,
            fed=arguments.fed,
            stream=arguments.stream,
            limit=compiled.manifest.limits.output,
            on_limit=lambda: live.kill(Cause.OUTPUT_LIMIT),
            feeds=service.feeds,
        )
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise Refused("busy", "the daemon is out of descriptors", "try again when some runs ended") from error
        raise


def _intent(request: Request, arguments: RunArguments, compiled: Compiled, live: LiveRun) -> dict[str, object]:
    """`data` of run.accepted. Of the environment and of files only the names: values may be secrets."""
    data: dict[str, object] = {
        **request.to_map(),
        "sandbox": live.sandbox,
        "argv": arguments.argv,
        "manifest": compiled.manifest.digest,
        "plan": compiled.plan.digest,
        "enforcement": compiled.enforcement,
    }
    if arguments.cwd is not None:
        data["cwd"] = arguments.cwd
    named: dict[str, tuple[object, ...]] = {
        "env": tuple(arguments.env),
        "files": tuple(arguments.files),
        "collect": arguments.collect,
        "fds": arguments.fds,
    }
    data |= {name: values for name, values in named.items() if values}
    if arguments.detach:
        data["detach"] = True
    return data


def _result(
    live: LiveRun, compiled: Compiled, fields: Mapping[str, object], streams: Streams, collected: Collected
) -> dict[str, object]:
    result: dict[str, object] = {"sandbox": live.sandbox, **fields}
    result |= streams.captured()
    records = streams.records() | collected.streams
    result["streams"] = {name: record.to_map() for name, record in records.items()}
    if collected.files:
        result["files"] = collected.files
    if collected.failed:
        result["uncollected"] = collected.failed
    result["violations"] = []
    result["enforcement"] = compiled.enforcement
    return result


def _outcome_data(result: Mapping[str, object], intent: int, collected: Collected) -> dict[str, object]:
    """`data` of run.finished: the result without what was written, which enters by digest."""
    data: dict[str, object] = {"sandbox": result["sandbox"], "intent": intent}
    data |= {name: result[name] for name in _MEASURED if name in result}
    streams = result["streams"]
    assert isinstance(streams, dict)  # noqa: S101 - `_result` made it
    data["streams"] = {
        name: {key: value.hex() if isinstance(value, bytes) else value for key, value in record.items()}
        for name, record in streams.items()
    }
    if collected.files:
        data["files"] = {path: _digest(content) for path, content in collected.files.items()}
    return data


def _digest(content: bytes) -> dict[str, object]:
    return {"length": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _out_of(error: OSError) -> Failed:
    """This process could not even send the plan: as the launcher would say it."""
    return Failed(Stage.CELL, None, error.errno or 0, os.strerror(error.errno or 0))


COMMANDS: Final = (CommandSpec("run", Permission.RUN, "run commands", run, takes_descriptors=True),)
