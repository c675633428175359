"""`run.batch`: many runs under one signature and one intent, their outcomes in few entries, their results as they end.

arguments -> every run's plan -> the intent to the ledger, durable -> the runs, so many at a time -> each outcome to the
ledger, with those that ended about then -> its result to the client -> the last entry -> the signed reply, which has
the digest of all results
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Sequence
from typing import Final

from immured.errors import Refused
from immured.identity.policy.warrant import Warrant
from immured.isolation.abi import Cause
from immured.isolation.compile import Compiled
from immured.isolation.launcher import LauncherLostError
from immured.ledger import entry_types
from immured.ledger.reserve import OUTCOME_BYTES
from immured.manifest.schema import Manifest
from immured.service.arguments import RunArguments
from immured.service.batches.arguments import BatchArguments, in_run, parse_batch
from immured.service.batches.execution import Execution
from immured.service.batches.journal import RESULTS, Journal
from immured.service.batches.records import RUN_ROOM, command_row, in_entries, name_of_run, ranges
from immured.service.commands import CommandSpec
from immured.service.context import Service
from immured.service.manifests import admit
from immured.service.planning import plan_run
from immured.service.registry import LiveRun
from immured.service.request import Answer, Request
from immured.service.storage import volume_names
from immured.wire.messages import Receipt, StreamRecord

__all__ = ["COMMANDS"]

_PER_PROCESSOR: Final = 4
"""How many runs at a time where nobody says: while one runs, others are set up and torn down."""


async def batch(service: Service, request: Request) -> Answer:
    """args and result: docs/protocol.md, run.batch."""
    if service.stopping:
        raise Refused("stopping", "the daemon is stopping", "ask again when it is back")
    arguments = parse_batch(request.command.args)
    name = "b" + secrets.token_hex(8)
    runs = _plans(service, request, arguments, name)
    stop = _Stop()
    group = service.registry.open_group(request.actor, service.clock(), f"a batch of {len(runs)} runs", name, stop)
    group.of_class(runs[0][1].manifest.class_)
    try:
        concurrency = arguments.concurrency or _PER_PROCESSOR * len(os.sched_getaffinity(0))
        limits = [compiled.manifest.limits for _, compiled in runs]
        group.lease, concurrency = service.shares.runs(
            request.actor.tenant, limits, concurrency, fewer=arguments.concurrency is None
        )
        return await _Batch(service, request, arguments, runs, group, stop, concurrency).answer()
    finally:
        service.registry.close_group(group)


class _Stop:
    """What `kill` of the whole batch calls, at any time."""

    def __init__(self) -> None:
        self._execution: Execution | None = None
        self._wanted = False

    def __call__(self, _number: int, _cause: Cause) -> None:
        self._wanted = True
        if self._execution is not None:
            self._execution.stop("killed")

    def reaches(self, execution: Execution) -> None:
        """From here on it stops that."""
        self._execution = execution
        if self._wanted:
            execution.stop("killed")


def _plans(
    service: Service, request: Request, arguments: BatchArguments, name: str
) -> list[tuple[RunArguments, Compiled]]:
    """Every run's, before anything: one that cannot be is the whole batch's refusal, naming the run."""
    manifests = _manifests(service, request.warrant, arguments)
    if volume_names(manifests[0]):
        raise Refused(
            "bad_argument",
            "the batch's manifest mounts a volume, which is one sandbox's at a time",
            "leave `filesystem.volumes` out, or run them one after the other",
            details={"field": "args.manifest"},
        )
    found = []
    for index, (one, manifest) in enumerate(zip(arguments.runs, manifests, strict=True)):
        try:
            found.append((one, plan_run(service, request.warrant, one, name_of_run(name, index), manifest)))
        except Refused as error:
            raise in_run(index, error) from None
    return found


def _manifests(service: Service, warrant: Warrant, arguments: BatchArguments) -> list[Manifest]:
    """Each run's: one manifest, admitted once for those that fill it in alike."""
    admitted: dict[int, Manifest] = {}  # parameters that all runs share are one map
    for index, one in enumerate(arguments.runs):
        if id(one.parameters) in admitted:
            continue
        try:
            found = admit(service, warrant, arguments.manifest, parameters=one.parameters)
        except Refused as error:
            if "parameters" in arguments.own[index]:
                raise in_run(index, error) from None
            raise
        admitted[id(one.parameters)] = found
    return [admitted[id(one.parameters)] for one in arguments.runs]


class _Batch:
    def __init__(
        self,
        service: Service,
        request: Request,
        arguments: BatchArguments,
        runs: Sequence[tuple[RunArguments, Compiled]],
        group: LiveRun,
        stop: _Stop,
        concurrency: int,
    ) -> None:
        self._service = service
        self._request = request
        self._arguments = arguments
        self._runs = runs
        self._group = group
        self._stop = stop
        self._concurrency = concurrency
        self._entry = service.manifests.enter(runs[0][1].manifest)
        self._began = time.monotonic_ns()

    async def answer(self) -> Answer:
        enforcement = self._runs[0][1].enforcement
        intent = await self._intent()
        journal = Journal(self._service, self._request, self._group.sandbox, intent, enforcement)
        execution = Execution(self._service, self._request, self._group.sandbox, self._runs, self._concurrency, journal)
        self._stop.reaches(execution)
        channel = self._request.channel
        channel.on_closed[self] = lambda: execution.stop("connection")
        if channel.closed:
            execution.stop("connection")
        try:
            journal.head(len(self._runs))
            await execution.run()
            return await self._finish(intent, journal, execution)
        except LauncherLostError as error:
            await self._lost(intent, journal, error.message)
            raise
        finally:
            channel.on_closed.pop(self, None)
            journal.abandon()
            self._service.ledger.release(intent.seq)

    async def _intent(self) -> Receipt:
        """What is ordered, durable: one intent, in as many entries as its commands take. Raises Refused."""
        service, request, arguments = self._service, self._request, self._arguments
        plans = hashlib.sha256()
        for _, compiled in self._runs:
            plans.update(compiled.plan.pack())
        first = self._runs[0][1]
        head: dict[str, object] = {
            **request.to_map(),
            "batch": self._group.sandbox,
            "runs": len(self._runs),
            "manifest": first.manifest.digest,
            **({} if self._entry is None else {"manifest_entry": self._entry}),
            "plans": "sha256:" + plans.hexdigest(),
            "enforcement": first.enforcement,
        }
        head |= command_row(self._runs[0][0], arguments.shared)
        rows = [command_row(one, own) for (one, _), own in zip(self._runs, arguments.own, strict=True)]
        entries = in_entries(rows) if any(rows) else [[]]
        if entries[0]:
            head["commands"] = entries[0]
        actor = request.actor.to_map()
        pending = intent = service.ledger.entry(
            entry_types.BATCH_ACCEPTED, actor, head, reserves_outcome=len(self._runs) * RUN_ROOM + OUTCOME_BYTES
        )
        seq, listed = intent.receipt.seq, len(entries[0])
        try:
            for commands in entries[1:]:
                more = {"batch": self._group.sandbox, "intent": seq, "from": listed, "commands": commands}
                pending = service.ledger.entry(entry_types.BATCH_ACCEPTED, actor, more)
                listed += len(commands)
            await pending.durable()
        except BaseException:
            service.ledger.release(seq)
            raise
        request.acted = True
        request.claim.intent = receipt = Receipt(*intent.receipt)
        return receipt

    async def _finish(self, intent: Receipt, journal: Journal, execution: Execution) -> Answer:
        results = await journal.close()
        said: dict[str, object] = {"batch": self._group.sandbox, "runs": len(self._runs)}
        said["causes"] = dict(journal.causes)
        said["usage"] = {"wall_ms": (time.monotonic_ns() - self._began) // 1_000_000}
        if execution.ended is not None:
            said["ended"] = execution.ended
            said["unstarted"] = len(self._runs) - execution.started
        entered = {**said, "intent": intent.seq, "results": _digest(results)}
        finished = await self._service.ledger.entry(
            entry_types.BATCH_FINISHED, self._service.actor, entered, outcome_of=intent.seq
        ).durable()
        self._request.claim.outcome = receipt = Receipt(finished.seq, finished.leaf)
        said["enforcement"] = self._runs[0][1].enforcement
        said["streams"] = {RESULTS: results.to_map()}
        return Answer(said, receipt, intent)

    async def _lost(self, intent: Receipt, journal: Journal, reason: str) -> None:
        """The launcher is gone: what is known is told, and which runs nothing is known of."""
        journal.flush()
        data = {
            "batch": self._group.sandbox,
            "intent": intent.seq,
            "reason": reason,
            "unknown": ranges(index for index in range(len(self._runs)) if index not in journal.told),
        }
        with contextlib.suppress(Refused):
            entry = self._service.ledger.entry(entry_types.BATCH_LOST, self._service.actor, data, outcome_of=intent.seq)
            durable = await entry.durable()
            self._request.claim.outcome = Receipt(durable.seq, durable.leaf)


def _digest(record: StreamRecord) -> dict[str, object]:
    return {"length": record.length, "sha256": record.sha256.hex()}


COMMANDS: Final = (CommandSpec("run.batch", "run.batch", batch),)
