"""`run`: one command in one sandbox, from the arguments to the signed result.

arguments -> plan -> the launcher prepares a cell, while the intent goes to the ledger -> both: go -> the outcome,
measured -> the outcome to the ledger -> the result
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Awaitable
from typing import Final

from immured.errors import ImmuredError, Refused
from immured.identity.authorise import Permission
from immured.isolation.abi import MAX_LEARNED, Cause, Stage
from immured.isolation.compile import Compiled
from immured.isolation.launcher import LauncherLostError, Outcome
from immured.isolation.learned import learned_map
from immured.isolation.messages import Failed
from immured.isolation.outcome import result_fields
from immured.isolation.violations import violation_rows
from immured.ledger import Pending, entry_types
from immured.service.arguments import RunArguments, parse_run
from immured.service.collect import Collected, collect
from immured.service.commands import CommandSpec
from immured.service.context import Service
from immured.service.descriptors import check_descriptors
from immured.service.planning import plan_run
from immured.service.registry import LiveRun, RunState
from immured.service.request import Answer, Request
from immured.service.run_records import intent_data, outcome_data, result_map
from immured.service.streams import Streams
from immured.wire.frames import MAX_FRAME
from immured.wire.messages import Receipt

__all__ = ["COMMANDS"]

_DRAIN_S: Final = 2.0
_ROOM_FOR_THE_REST: Final = 128 * 1024
"""Bytes of a reply that are neither output nor files."""


def run(service: Service, request: Request) -> Awaitable[Answer]:
    """args and result: docs/protocol.md, run.

    Called, it has sent the plan and queued the intent when it returns: whatever follows on the connection, a data frame
    of its stdin or the connection's end, finds it there. Raises Refused where nothing was begun.
    """
    if service.stopping:
        raise Refused("stopping", "the daemon is stopping", "ask again when it is back")
    arguments = parse_run(request.command.args)
    check_descriptors(request.descriptors.fds, arguments.fds)
    live = service.registry.open(request.actor.key_id, request.actor.uid, service.clock(), arguments.shown)
    log = None
    try:
        compiled = plan_run(service, request.actor, arguments, live.sandbox)
        log = _open_log() if arguments.learn else None
        streams = _open_streams(service, request, arguments, compiled, live)
    except BaseException:
        if log is not None:
            os.close(log)
        service.registry.close(live)
        raise
    execution = _Execution(service, request, arguments, compiled, live, streams, log)
    execution.begin()
    return execution.finish()


class _Execution:
    """One run, once everything that can refuse it has been asked but the ledger."""

    def __init__(
        self,
        service: Service,
        request: Request,
        arguments: RunArguments,
        compiled: Compiled,
        live: LiveRun,
        streams: Streams,
        log: int | None = None,
    ) -> None:
        self._service = service
        self._request = request
        self._arguments = arguments
        self._compiled = compiled
        self._live = live
        self._streams = streams
        self._log = log
        self._ending: Awaitable[Outcome] | None = None
        self._unsent: LauncherLostError | OSError | None = None
        self._intent: Pending | None = None
        self._allowed: Receipt | None = None
        self._refused: Exception | None = None

    def begin(self) -> None:
        """Send the plan and queue the intent; where that is durable at once, let it go. Raises nothing."""
        service, request, live = self._service, self._request, self._live
        live.detach = self._arguments.detach
        if not live.detach:
            request.channel.on_closed[live] = live.kill
        try:
            self._ending = service.launcher.prepare(
                live.number,
                request.channel.number,
                self._compiled.plan.pack(),
                self._streams.payload_ends,
                ours=[place for place in (0, 1, 2) if place not in self._arguments.fds],
                log=self._log,
            )
        except (LauncherLostError, OSError) as error:
            self._unsent = error
        self._streams.close_payload_ends()
        request.descriptors.close()
        data = intent_data(request, self._arguments, self._compiled, live.sandbox)
        try:
            self._intent = service.ledger.entry(
                entry_types.RUN_ACCEPTED,
                request.actor.to_map(),
                data,
                reserves_outcome=True,
                alone=len(service.registry) == 1,
            )
            if self._intent.is_durable():
                self._allow(self._intent)
        except Exception as error:  # noqa: BLE001 - raised again once the cell is called off
            self._refused = error

    async def finish(self) -> Answer:
        """Go once the intent is durable; see it to its end, and the outcome into the ledger."""
        try:
            intent = await self._until_allowed()
            outcome = await self._until_over(intent)
            return await self._conclude(intent, outcome)
        finally:
            self._live.kill()  # unless it is over, as it is if nothing went wrong
            self._request.channel.on_closed.pop(self._live, None)
            self._streams.close()
            if self._log is not None:
                os.close(self._log)
            self._service.registry.close(self._live)

    async def _until_allowed(self) -> Receipt:
        """The intent's receipt, once it is durable. Raises Refused, and nothing will run, where it never will be."""
        try:
            if self._intent is None or self._refused is not None:
                raise self._refused or AssertionError
            await self._intent.durable()
        except Exception:
            await self._call_off()
            raise
        return self._allowed or self._allow(self._intent)

    def _allow(self, intent: Pending) -> Receipt:
        """The intent is durable: from here on the command has acted, and its payload may."""
        self._request.acted = True
        self._request.claim.intent = self._allowed = Receipt(*intent.receipt)
        if self._ending is not None and not self._live.killed:
            self._live.state = RunState.RUNNING
            self._service.launcher.go(self._live.number)
        return self._allowed

    async def _until_over(self, intent: Receipt) -> Outcome:
        """How it ended. Raises LauncherLostError, and the ledger says so too."""
        try:
            if self._unsent is not None:
                raise self._unsent
            assert self._ending is not None  # noqa: S101 - else `_unsent` says why
            return await self._ending
        except LauncherLostError as error:
            data = {"sandbox": self._live.sandbox, "intent": intent.seq, "reason": error.message}
            with contextlib.suppress(Refused):
                lost = self._service.ledger.entry(
                    entry_types.RUN_LOST, self._service.actor, data, outcome_of=intent.seq
                )
                durable = await lost.durable()
                self._request.claim.outcome = Receipt(durable.seq, durable.leaf)
            raise
        except OSError as error:
            return Outcome(Failed(Stage.CELL, None, error.errno or 0, os.strerror(error.errno or 0)))

    async def _call_off(self) -> None:
        """There is no durable intent, so nothing may run: have the cell torn down."""
        if self._ending is not None:
            self._live.kill()
            with contextlib.suppress(LauncherLostError):
                self._request.channel.dispose((await self._ending).files.values())

    async def _conclude(self, intent: Receipt, outcome: Outcome) -> Answer:
        streams = self._streams
        collected = Collected()
        # All that was asked for was written before it was answered: nobody is left who writes.
        learned = b"" if self._log is None else os.pread(self._log, MAX_LEARNED, 0)
        try:
            await streams.drain(asyncio.get_running_loop().time() + _DRAIN_S)
            if outcome.files:
                collected = await collect(
                    self._arguments.collect,
                    outcome.files,
                    room=MAX_FRAME - _ROOM_FOR_THE_REST - streams.captured_bytes - len(learned),
                    re=self._request.command.nonce,
                    channel=self._request.channel,
                )
        finally:
            self._request.channel.dispose(outcome.files.values())
        measured = result_fields(outcome.report, self._compiled.plan.steps)
        # Written before its death, and read after it: the limit was met first, and what is above it is gone.
        if streams.too_much and measured["cause"] in ("exited", "signaled"):
            measured["cause"] = "output_limit"
        violations = violation_rows(outcome.report, self._compiled.manifest, self._service.state.config.profiles)
        records = streams.records()
        result = result_map(
            self._live.sandbox, self._compiled, measured, streams.captured(), records, collected, violations
        )
        if self._log is not None:
            result["learned"] = learned_map(learned)
        data = outcome_data(intent.seq, result, records, collected)
        try:
            finished = await self._service.ledger.entry(
                entry_types.RUN_FINISHED,
                self._service.actor,
                data,
                outcome_of=intent.seq,
                alone=len(self._service.registry) == 1,
            ).durable()
        except Refused as error:
            raise ImmuredError(
                error.code,
                f"{self._live.sandbox} ran and ended ({result['cause']}), and the ledger was not told: {error.message}",
                error.remedy,
                details={"sandbox": self._live.sandbox, "cause": result["cause"]},
            ) from error
        self._request.claim.outcome = receipt = Receipt(finished.seq, finished.leaf)
        return Answer(result, receipt, intent)


def _open_log() -> int:
    try:
        return os.memfd_create("immured-learned", os.MFD_CLOEXEC)
    except OSError as error:
        raise Refused("busy", f"no memory for the log: {error.strerror}", "try again when some runs ended") from error


def _open_streams(
    service: Service, request: Request, arguments: RunArguments, compiled: Compiled, live: LiveRun
) -> Streams:
    try:
        return Streams(
            request.channel,
            request.command.nonce,
            passed=dict(zip(arguments.fds, request.descriptors.fds, strict=True)),
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


COMMANDS: Final = (CommandSpec("run", Permission.RUN, "run commands", run, takes_descriptors=True),)
