"""A batch's outcomes on their way into the ledger, many to an entry, and its results on their way to the client.

An outcome waits a moment for others; what a client is given of a run is in the ledger before. One task sends, in the
order of the entries: a client that takes its time holds up the batch, by `full`, and nobody's memory grows.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, deque
from collections.abc import Mapping
from typing import Final, cast

from immured.errors import ImmuredError, Refused
from immured.isolation.pinned import Executable
from immured.ledger import Pending, entry_types
from immured.ledger.entry import Json
from immured.service.batches.records import ROWS_ROOM, Conclusion, client_record, outcome_row, size_of
from immured.service.context import Service
from immured.service.request import Request
from immured.wire.frames import encode_frame
from immured.wire.messages import MAX_DATA, Receipt, StreamRecord, data_body
from immured.wire.strict_msgpack import pack

__all__ = ["RESULTS", "Journal"]

RESULTS: Final = "results"
"""The stream: maps of msgpack, each behind its length, as frames are."""

_WAIT_S: Final = 0.05
"""An outcome is in an entry at most so much later."""
_HELD: Final = 4 << 20
"""Bytes of results that wait for their entry or for the client, at which no further run begins."""


class Journal:
    """The outcomes of one batch. `intent` is the entry that allowed it, durable."""

    def __init__(
        self, service: Service, request: Request, batch: str, intent: Receipt, enforcement: Mapping[str, str]
    ) -> None:
        self._service = service
        self._channel = request.channel
        self._re = request.command.nonce
        self._batch = batch
        self._intent = intent
        self._enforcement = enforcement
        self._loop = asyncio.get_running_loop()
        self._rows: list[Mapping[str, Json]] = []
        self._records: list[dict[str, object]] = []
        self._size = 0
        self._held = 0
        self._held_here = 0
        self._due: asyncio.TimerHandle | None = None
        self._written: deque[tuple[Pending, list[dict[str, object]], int]] = deque()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._closed = False
        self._digest = hashlib.sha256()
        self._length = 0
        self._sender = self._loop.create_task(self._send_all(), name="immured-batch-results")
        self.failure: ImmuredError | None = None
        """Why an outcome could not be told: nothing further may begin."""
        self.causes: Counter[str] = Counter()
        self.told: set[int] = set()
        self._pinned: dict[tuple[Executable, ...], asyncio.Task[int]] = {}

    @property
    def room(self) -> asyncio.Event:
        """Set while another run may begin, as far as its result is concerned."""
        return self._room

    def head(self, runs: int) -> None:
        """What the stream begins with."""
        self._send(
            [
                {
                    "batch": self._batch,
                    "runs": runs,
                    "intent": self._intent.to_map(),
                    "enforcement": dict(self._enforcement),
                }
            ]
        )

    def add(self, index: int, conclusion: Conclusion) -> None:
        """One run is over."""
        row = outcome_row(index, conclusion)
        self._rows.append(row)
        self._size += size_of(cast("Json", row)) + 1
        result = conclusion.result
        self.causes[str(result["cause"])] += 1
        self.told.add(index)
        self._records.append(client_record(index, conclusion, self._enforcement))
        size = sum(len(cast("bytes", result[name])) for name in ("stdout", "stderr") if name in result)
        size += sum(map(len, conclusion.collected.files.values())) + 512
        self._held_here += size
        self._held += size
        if self._held >= _HELD:
            self._room.clear()
        if self._size >= ROWS_ROOM:
            self.flush()
        elif self._due is None:
            self._due = self._loop.call_later(_WAIT_S, self.flush)

    async def pin(self, executables: tuple[Executable, ...]) -> int:
        """The number by which the batch's outcomes name these: an entry says which they are, once, durable before the
        first run of them. Raises Refused."""
        entering = self._pinned.get(executables)
        if entering is None:
            number = len(self._pinned)
            entering = self._pinned[executables] = self._loop.create_task(self._enter(number, executables))
        return await asyncio.shield(entering)

    async def _enter(self, number: int, executables: tuple[Executable, ...]) -> int:
        data = {"batch": self._batch, "intent": self._intent.seq, "pinned": number}
        rows = [one.to_map() for one in executables]
        entry = self._service.ledger.entry(entry_types.BATCH_PINNED, self._service.actor, {**data, "executables": rows})
        await entry.durable()
        return number

    def flush(self) -> None:
        """Write what waits."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if not self._rows:
            return
        rows, self._rows, self._size = self._rows, [], 0
        records, self._records = self._records, []
        size, self._held_here = self._held_here, 0
        data = {"batch": self._batch, "intent": self._intent.seq, "outcomes": rows}
        try:
            pending = self._service.ledger.entry(
                entry_types.BATCH_PROGRESS, self._service.actor, data, part_of=self._intent.seq
            )
        except Refused as error:
            self._fail(error)
            return
        self._written.append((pending, records, size))
        self._changed.set()

    async def close(self) -> StreamRecord:
        """Write and send all that is left, end the stream, and say what it was. Raises ImmuredError where an outcome
        could not be told."""
        self.flush()
        self._closed = True
        self._changed.set()
        await self._sender
        if self.failure is not None:
            raise self.failure
        self._channel.send(data_body(self._re, RESULTS, b""))
        return StreamRecord(self._length, self._digest.digest())

    def abandon(self) -> None:
        """Something else went wrong: send no more. Twice is once."""
        if self._due is not None:
            self._due.cancel()
        self._sender.cancel()

    async def _send_all(self) -> None:
        while self.failure is None:
            if not self._written:
                if self._closed:
                    return
                self._changed.clear()
                await self._changed.wait()
                continue
            pending, records, size = self._written.popleft()
            try:
                receipt = (await pending.durable())._asdict()
            except Refused as error:
                self._fail(error)
                return
            for record in records:
                record["receipt"] = receipt
            self._send(records)
            await self._until_taken()
            self._held -= size
            if self._held < _HELD:
                self._room.set()

    def _send(self, records: list[dict[str, object]]) -> None:
        data = b"".join([encode_frame(pack(record)) for record in records])
        self._digest.update(data)
        self._length += len(data)
        for start in range(0, len(data), MAX_DATA):
            self._channel.send(data_body(self._re, RESULTS, data[start : start + MAX_DATA]))

    async def _until_taken(self) -> None:
        if self._channel.congested and not self._channel.closed:
            drained = asyncio.Event()
            self._channel.when_drained(drained.set)
            await drained.wait()

    def _fail(self, error: Refused) -> None:
        self.failure = ImmuredError(
            error.code,
            f"runs of {self._batch} ended, and the ledger was not told: {error.message}",
            error.remedy,
            details={"batch": self._batch},
        )
        self._room.set()
