"""Many runs under one signature, as values: what is asked for, and how the stream of results is read. Sans-I/O.

A batch is one command; more runs than one command holds are several, one after the other (`parts`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypedDict, Unpack

from immured.client.errors import StreamMismatch, UntrustedReply
from immured.client.order import Bytes, Order, Parameter, Text, arguments
from immured.client.outcome import FILE, Collector, RunResult, answer
from immured.errors import Refused
from immured.wire.frames import HEADER, MAX_FRAME
from immured.wire.messages import Data, Receipt, Reply
from immured.wire.strict import Fields
from immured.wire.strict_msgpack import unpack

__all__ = ["MAX_PART", "MAX_RUNS", "BatchOptions", "OneRun", "Part", "Reader", "Summary", "parts"]

MAX_RUNS: Final = 1_024
MAX_PART: Final = 768 * 1024
"""Bytes of runs that one command carries, about: a frame is 1 MiB."""
_MAX_VALUES: Final = 49_152
"""Of 65,536 that one command may hold."""
_RESULTS: Final = "results"


class OneRun(TypedDict, total=False):
    """One run of a batch; what it leaves out is the batch's."""

    argv: Sequence[Text]
    parameters: Mapping[str, Parameter] | None
    stdin: Bytes
    env: Mapping[str, Text] | None
    cwd: Text | None
    limits: Mapping[str, object] | None
    files: Mapping[str, Bytes] | None
    collect: Sequence[Text] | None


class BatchOptions(TypedDict, total=False):
    """What all runs of a batch share; a run's own stands in its place."""

    argv: Sequence[Text]
    manifest: str | Mapping[str, object] | None
    parameters: Mapping[str, Parameter] | None
    stdin: Bytes
    env: Mapping[str, Text] | None
    cwd: Text | None
    limits: Mapping[str, object] | None
    files: Mapping[str, Bytes] | None
    collect: Sequence[Text] | None


@dataclass(frozen=True, slots=True)
class Part:
    """One command: `args` to sign, for the runs from `first` on."""

    args: Mapping[str, object]
    first: int
    runs: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What a batch's signed reply says of it as a whole."""

    batch: str
    runs: int
    causes: Mapping[str, int]
    """Cause to how many runs ended by it."""
    ended: str | None
    """Why it was ended before all had begun: `killed`, `stopping`; None where nobody did."""
    unstarted: int
    receipt: Receipt
    intent: Receipt


def parts(
    runs: Iterable[Sequence[Text] | OneRun], *, concurrency: int | None = None, **options: Unpack[BatchOptions]
) -> Iterator[Part]:
    """The commands for these runs, in order: a run is a list of words, or a map. Raises TypeError, ValueError for what
    no daemon would understand."""
    shared = _fields({name: value for name, value in options.items() if name != "manifest"})
    if options.get("manifest") is not None:
        shared["manifest"] = arguments(["-"], manifest=options["manifest"]).args["manifest"]
    if concurrency is not None:
        shared["concurrency"] = concurrency
    bytes_left, values_left = MAX_PART - _weight(shared)[0], _MAX_VALUES - _weight(shared)[1]
    if bytes_left <= 0 or values_left <= 0:
        raise ValueError("what all runs share does not fit one command: put it into a file that they may read")
    rows: list[dict[str, object]] = []
    first = size = values = 0
    for one in runs:
        row = _fields(one if isinstance(one, Mapping) else {"argv": one})
        more, items = _weight(row)
        if rows and (len(rows) == MAX_RUNS or size + more > bytes_left or values + items > values_left):
            yield Part({**shared, "runs": rows}, first, len(rows))
            first, rows, size, values = first + len(rows), [], 0, 0
        rows.append(row)
        size, values = size + more, values + items
    if rows:
        yield Part({**shared, "runs": rows}, first, len(rows))


def _fields(one: Mapping[str, object]) -> dict[str, object]:
    """The fields of one run, or of all, as the command carries them: as `run` does."""
    if unknown := one.keys() - OneRun.__annotations__.keys():
        raise TypeError(f"a run of a batch has no field {min(unknown)!r}")
    given: Any = {name: value for name, value in one.items() if name not in ("argv", "stdin")}
    argv: Any = one.get("argv")
    stdin = one.get("stdin")
    made = dict(arguments(["-"] if argv is None else argv, **given).args)
    if argv is None:
        del made["argv"]
    if stdin is not None:
        if not isinstance(stdin, bytes | bytearray | memoryview):
            raise TypeError("a batch's stdin is bytes: what is read elsewhere goes with `run`")
        made["stdin"] = bytes(stdin)
    return made


def _weight(value: object) -> tuple[int, int]:
    """Bytes and values that it takes in a command, at most."""
    inner: list[tuple[int, int]] = []
    if isinstance(value, str | bytes):
        return 5 + (len(value) if isinstance(value, bytes) or value.isascii() else 4 * len(value)), 1
    if isinstance(value, Mapping):
        inner = [_weight(one) for pair in value.items() for one in pair]
    elif isinstance(value, list | tuple):
        inner = [_weight(one) for one in value]
    return 9 + sum(size for size, _ in inner), 1 + sum(count for _, count in inner)


class Reader:
    """One part's answers: data as it comes, then the reply. Each result is given once it is whole."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._buffer = bytearray()
        self._digest = hashlib.sha256()
        self._length = 0
        self._files: dict[int, Collector] = {}
        self._intent: Receipt | None = None
        self._enforcement: object = {}
        self._begun = False

    def data(self, data: Data) -> list[tuple[int, RunResult]]:
        """Takes one piece; the results that are whole by now, each with its run's index. Raises UntrustedReply,
        StreamMismatch."""
        if not data.data:
            return []
        if data.stream == _RESULTS:
            self._digest.update(data.data)
            self._length += len(data.data)
            self._buffer += data.data
            return [found for record in self._records() if (found := self._take(record)) is not None]
        index, _, name = data.stream.partition(":")
        if index.isdigit() and len(index) < 6 and name.startswith(FILE):
            self._collector(int(index)).data(Data(data.re, name, data.data))
        return []

    def finish(self, reply: Reply) -> Summary:
        """The whole. Raises Refusal; StreamMismatch where the results are not those that the reply signs."""
        said = answer(reply)
        fields = Fields(said.result, "result", "bad_reply")
        try:
            if said.receipt is None or said.intent is None:
                raise UntrustedReply("a batch's reply without receipts")
            streams = Fields(fields.required("streams", dict), "result.streams", "bad_reply")
            record = Fields(streams.required(_RESULTS, dict), "result.streams.results", "bad_reply")
            length, digest = record.required("length", int), record.required("sha256", bytes)
            if length != self._length or digest != self._digest.digest():
                raise StreamMismatch(
                    _RESULTS, f"{self._length} bytes came, and they are not the {length} that are signed"
                )
            causes = fields.required("causes", dict)
            return Summary(
                batch=fields.required("batch", str),
                runs=fields.required("runs", int),
                causes={str(cause): count for cause, count in causes.items() if type(count) is int},
                ended=fields.optional("ended", str),
                unstarted=fields.optional("unstarted", int) or 0,
                receipt=said.receipt,
                intent=said.intent,
            )
        except Refused as error:
            raise UntrustedReply(f"the result cannot be read: {error.message}") from None

    def _records(self) -> Iterator[Fields]:
        while len(self._buffer) >= HEADER:
            end = HEADER + int.from_bytes(self._buffer[:HEADER], "big")
            if end > HEADER + MAX_FRAME:
                raise UntrustedReply("a record of the results is longer than a frame")
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[HEADER:end])
            del self._buffer[:end]
            try:
                value = unpack(body)
            except Refused as error:
                raise UntrustedReply(f"a record of the results cannot be read: {error.message}") from None
            if not isinstance(value, dict):
                raise UntrustedReply("a record of the results is no map")
            yield Fields(value, "results", "bad_reply")

    def _take(self, fields: Fields) -> tuple[int, RunResult] | None:
        try:
            if not self._begun:
                self._begun = True
                self._intent = _receipt(fields, "intent")
                self._enforcement = fields.optional("enforcement", dict) or {}
                return None
            index = fields.integer("run", 0, self._part.runs - 1)
            receipt = _receipt(fields, "receipt")
            if index is None or self._intent is None:
                raise UntrustedReply("a record of the results names no run")
        except Refused as error:
            raise UntrustedReply(f"a record of the results cannot be read: {error.message}") from None
        result = {"enforcement": self._enforcement, **fields.values}
        for name in ("run", "receipt"):
            del result[name]
        collector = self._files.pop(index, None) or Collector(_ORDER)
        whole = collector.finish(Reply(ok=True, result=result, receipt=receipt, intent=self._intent))
        return self._part.first + index, whole

    def _collector(self, index: int) -> Collector:
        if index not in self._files:
            self._files[index] = Collector(_ORDER)
        return self._files[index]


_ORDER: Final = Order({})


def _receipt(fields: Fields, name: str) -> Receipt:
    inner = Fields(fields.required(name, dict), f"results.{name}", fields.code)
    inner.sized("leaf", bytes, 32, 32)
    return Receipt(inner.required("seq", int), inner.required("leaf", bytes))
