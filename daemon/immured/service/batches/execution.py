"""The runs of a batch, so many at a time, each in a cell of its own and behind the same walls as any run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Sequence
from typing import Final

from immured.errors import Refused
from immured.isolation.abi import Cause, Stage
from immured.isolation.compile import Compiled
from immured.isolation.launcher import LauncherLostError, Outcome
from immured.isolation.launcher_runs import Pinned
from immured.isolation.messages import Failed
from immured.isolation.outcome import result_fields
from immured.isolation.pinned import Executable
from immured.service.arguments import RunArguments
from immured.service.batches.journal import Journal
from immured.service.batches.records import Conclusion, name_of_run
from immured.service.collect import Collected
from immured.service.conclusion import conclude
from immured.service.context import Service
from immured.service.executables import executables
from immured.service.registry import LiveRun, RunState
from immured.service.request import Request
from immured.service.run_records import result_map
from immured.service.streams import Streams

__all__ = ["Execution"]

_KEPT_FREE: Final = 4
"""One place in so many is left to single runs."""
_LOOK_S: Final = 0.02
"""Seconds after which a batch that found no place looks again."""


class Execution:
    """`runs` in order, `concurrency` at a time. `stop` ends what lives and begins nothing more; `ended` says why."""

    def __init__(
        self,
        service: Service,
        request: Request,
        batch: str,
        runs: Sequence[tuple[RunArguments, Compiled]],
        concurrency: int,
        journal: Journal,
    ) -> None:
        self._service = service
        self._request = request
        self._batch = batch
        self._runs = runs
        self._concurrency = max(1, min(concurrency, len(runs), service.registry.places))
        self._journal = journal
        self._live: set[LiveRun] = set()
        self.started = 0
        self.ended: str | None = None
        """Why it was stopped; None while nobody did."""

    def stop(self, why: str) -> None:
        """End all that lives; begin nothing. The first reason stays."""
        if self.ended is None:
            self.ended = "stopping" if self._service.stopping else why
        self._journal.room.set()
        for live in list(self._live):
            live.kill()

    async def run(self) -> None:
        """See all of them to their end. Raises LauncherLostError; whatever failed, nothing of the batch lives after."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._concurrency):
                    group.create_task(self._work())
        except* LauncherLostError as lost:
            raise lost.exceptions[0] from None

    async def _work(self) -> None:
        while (found := await self._place()) is not None:
            index, live = found
            try:
                self._journal.add(index, await self._one(index, live))
            finally:
                self._live.discard(live)
                live.kill()  # unless it is over, as it is if nothing went wrong
                self._service.registry.close(live)

    async def _place(self) -> tuple[int, LiveRun] | None:
        """The next run, and its place; None where there is nothing more to begin."""
        registry = self._service.registry
        left_free = registry.places // _KEPT_FREE
        while True:
            await self._journal.room.wait()
            if self.ended is None and self._service.stopping:
                self.ended = "stopping"
            index = self.started
            if self.ended is not None or self._journal.failure is not None or index >= len(self._runs):
                return None
            if registry.free > left_free:
                actor, (arguments, compiled) = self._request.actor, self._runs[index]
                name = name_of_run(self._batch, index)
                live = registry.open(actor, self._service.clock(), arguments.shown, name)
                live.of_class(compiled.manifest.class_)
                self._live.add(live)
                self.started += 1
                return index, live
            await asyncio.sleep(_LOOK_S)

    async def _one(self, index: int, live: LiveRun) -> Conclusion:
        service, request = self._service, self._request
        arguments, compiled = self._runs[index]
        try:
            streams = _open_streams(service, request, arguments, compiled, live)
        except OSError as error:
            measured = result_fields(_no_cell(error), compiled.plan.steps)
            named = {"sandbox": live.sandbox}
            return Conclusion(result_map(named, compiled, measured, {}, {}, Collected()), {}, Collected())
        try:
            ending, pinned = self._send(live, compiled, streams)
            number = None
            executed: tuple[Executable, ...] = ()
            if pinned is not None:
                try:
                    executed = await executables(service.digests, compiled, pinned) or ()
                    number = await self._journal.pin(executed) if executed else None
                except Refused as error:
                    return await self._call_off(live, compiled, ending, error)
            live.state = RunState.RUNNING
            service.launcher.go(live.number)
            outcome = await ending
            found = await conclude(
                service,
                request.channel,
                request.command.nonce,
                arguments,
                compiled,
                {"sandbox": live.sandbox},
                streams,
                outcome,
                prefix=f"{index}:",
            )
            if executed:
                found[0]["executables"] = [one.to_map() for one in executed]
            return Conclusion(*found, pinned=number)
        finally:
            streams.close()

    def _send(
        self, live: LiveRun, compiled: Compiled, streams: Streams
    ) -> tuple[Awaitable[Outcome], Awaitable[Pinned | None] | None]:
        """How it will end, and what it will execute, where its plan has a PIN. The intent is durable, so that any other
        goes as soon as it is prepared."""
        launcher = self._service.launcher
        try:
            ending = launcher.prepare(
                live.number, self._request.channel.number, compiled.plan.pack(), streams.payload_ends, ours=(0, 1, 2)
            )
        except OSError as error:
            return _ended(Outcome(_no_cell(error))), None
        finally:
            streams.close_payload_ends()
        return ending, launcher.pinned(live.number) if compiled.manifest.command.pin else None

    async def _call_off(
        self, live: LiveRun, compiled: Compiled, ending: Awaitable[Outcome], error: Refused
    ) -> Conclusion:
        """What it would execute is not allowed, or cannot be entered: it never runs."""
        live.kill()
        self._request.channel.dispose((await ending).files.values())
        failure = {"code": error.code, "stage": "pin", "message": error.message, "remedy": error.remedy}
        measured: dict[str, object] = {"cause": "setup_failed", "failure": failure, "usage": {}, "events": {}}
        named = {"sandbox": live.sandbox}
        return Conclusion(result_map(named, compiled, measured, {}, {}, Collected()), {}, Collected())


async def _ended(outcome: Outcome) -> Outcome:
    return outcome


def _no_cell(error: OSError) -> Failed:
    return Failed(Stage.CELL, None, error.errno or 0, os.strerror(error.errno or 0))


def _open_streams(
    service: Service, request: Request, arguments: RunArguments, compiled: Compiled, live: LiveRun
) -> Streams:
    return Streams(
        request.channel,
        request.command.nonce,
        passed={},
        stdin=arguments.stdin,
        fed=False,
        stream=False,
        limit=compiled.manifest.limits.output,
        on_limit=lambda: live.kill(Cause.OUTPUT_LIMIT),
        feeds=service.feeds,
    )
