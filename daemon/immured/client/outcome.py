"""What came back: an answer, or a run's typed result with its streams checked against the signed reply."""

from __future__ import annotations

import hashlib
import signal as signals
from collections.abc import Callable, Collection, Mapping, Set
from dataclasses import dataclass, field

from immured.client.errors import Refusal, RunFailed, StreamMismatch, UntrustedReply
from immured.client.order import Order
from immured.errors import Refused
from immured.wire.messages import Data, Receipt, Reply, StreamRecord
from immured.wire.strict import Fields

__all__ = ["Answer", "Collector", "RunResult", "Sink", "Violation", "answer"]

Sink = Callable[[bytes], object]
"""Takes a stream's bytes as they come. They are not trusted until the result is there: the reply signs their digest."""

FILE = "file:"
"""A collected file that does not fit the reply travels as the stream `file:<path>`."""

EXEC = "exec"
"""The stream on which an exec says its id before all else, so that it can be signalled before it ends."""

FROM = "from"
"""The stream on which an attached log says at which offset, in decimal, what comes next begins."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A signed result. `receipt` is set where the ledger holds the decision."""

    result: Mapping[str, object]
    receipt: Receipt | None
    intent: Receipt | None


def answer(reply: Reply) -> Answer:
    """The answer that `reply` holds. Raises Refusal."""
    if not reply.ok:
        raise Refusal(reply)
    return Answer(reply.result or {}, reply.receipt, reply.intent)


@dataclass(frozen=True, slots=True)
class Violation:
    """An act of the payload's that a wall refused. `path` or `address` where the call has one."""

    kind: str
    """`write`, `syscall` or `connect`."""
    syscall: str
    rule: str
    remedy: str
    attribution: str
    """`claimed`: path, address and exe were read from the process, which could lie. `kernel`: they were not."""
    path: str | bytes | None = None
    address: str | None = None
    pid: int | None = None
    exe: str | bytes | None = None

    @classmethod
    def of(cls, row: Mapping[str, object]) -> Violation:
        """One row of a result. What a later version adds is passed over; what is missing is empty."""

        def text(name: str) -> str:
            value = row.get(name)
            return value if isinstance(value, str) else ""

        path, exe, pid = row.get("path"), row.get("exe"), row.get("pid")
        return cls(
            kind=text("kind"),
            syscall=text("syscall"),
            rule=text("rule"),
            remedy=text("remedy"),
            attribution=text("attribution"),
            path=path if isinstance(path, (str, bytes)) else None,
            address=text("address") or None,
            pid=pid if type(pid) is int else None,
            exe=exe if isinstance(exe, (str, bytes)) else None,
        )


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended, as the daemon measured and signed it. A command that fails is a result, not an error."""

    sandbox: str
    cause: str
    """`exited`, `signaled`, `timeout`, `cpu_time`, `oom`, `pids`, `output_limit`, `violation`, `killed` or
    `setup_failed`: what ended the main process; the first event wins."""
    exit_code: int | None
    signal: int | None
    stdout: bytes
    """Captured up to 256 KiB; whole where it was streamed; empty where a callback or a descriptor took it."""
    stderr: bytes
    streams: Mapping[str, StreamRecord]
    """Length and SHA-256 of each stream, as signed; those that came as data have been checked."""
    files: Mapping[str, bytes]
    """What `collect` brought back, by path; a path that was missing is not here."""
    usage: Mapping[str, int]
    """`wall_ms`, `cpu_ms`, `memory_peak_bytes`, ...: only what was measured."""
    violations: tuple[Violation, ...]
    """Acts that a wall refused: the first of each kind, call and target, at most 64."""
    violation_counts: Mapping[str, int]
    """Kind to how many there were, of kinds that had more than `violations` has."""
    enforcement: Mapping[str, str]
    """Limit to the means that enforced it."""
    events: Mapping[str, object]
    """What happened beside the cause: counters and facts."""
    failure: Mapping[str, object] | None
    """With cause `setup_failed`: code, stage, message, remedy, and errno and path where there is one."""
    receipt: Receipt
    """The ledger's entry of the outcome."""
    intent: Receipt
    """The ledger's entry that allowed the run, durable before its first instruction."""
    uncollected: tuple[str, ...] = ()
    """Paths of `collect` whose file could not be read in time."""
    exec: str | None = None
    """Of an exec in a sandbox that lives: its id."""
    missing: tuple[str, ...] = ()
    """After a retry, streams that were not received whole: the reply is kept by the daemon, the data is not."""
    executables: tuple[Mapping[str, object], ...] = ()
    """What was executed, then what interprets it, where the manifest pins that: `path`, `sha256` (hex), `size`, and
    `changeable` where others than root can change the file."""
    raw: Mapping[str, object] = field(default_factory=dict, repr=False)
    """The result as it came, fields of later versions included."""

    @property
    def ok(self) -> bool:
        """Whether the command ran and exited with 0."""
        return self.cause == "exited" and self.exit_code == 0

    @property
    def summary(self) -> str:
        """One line for people."""
        if self.failure is not None:
            return str(self.failure.get("message", "the sandbox could not be set up"))
        if self.signal is not None:
            return f"signal {self.signal} ({signals.strsignal(self.signal) or 'real-time'})"
        return "no exit status" if self.exit_code is None else f"exit status {self.exit_code}"

    def check(self) -> RunResult:
        """Itself, when `ok`. Raises RunFailed otherwise."""
        if not self.ok:
            raise RunFailed(self)
        return self


class Collector:
    """Takes a run's data as it comes and turns its reply into a result."""

    def __init__(self, order: Order, *, keep: Collection[str] = ("stdout", "stderr")) -> None:
        self._order = order
        self._keep = keep
        self._kept: dict[str, bytearray] = {}
        self._digests: dict[str, _Digest] = {}
        self._sent = _Digest()
        self.exec: str | None = None
        """An exec's id, said before its output."""
        self.offset: int | None = None
        """Of an attached log: where what comes next begins, said before it; output counts on."""

    def data(self, data: Data) -> bool:
        """Takes one piece; whether it is output for the caller. `keep` says what of it the result holds."""
        is_output = data.stream in self._order.streamed
        if not is_output and data.stream in (EXEC, FROM):
            self._told(data)
            return False
        if is_output and self.offset is not None:
            self.offset += len(data.data)
        if not data.data or not (is_output or data.stream.startswith(FILE)):
            return False
        self._digests.setdefault(data.stream, _Digest()).update(data.data)
        if not is_output or data.stream in self._keep:
            self._kept.setdefault(data.stream, bytearray()).extend(data.data)
        return is_output

    def _told(self, data: Data) -> None:
        """What an order's first words say of it. Unsigned, as all data: the reply has the exec's id again."""
        text = data.data.decode("ascii", "replace")
        if data.stream == EXEC:
            self.exec = text
        elif len(text) < 20 and text.isdecimal():
            self.offset = int(text)

    def sending(self, chunk: bytes) -> None:
        """Notes a piece of standard input that is about to go out as data. Another thread may read meanwhile: what it
        reads is replaced, never changed."""
        sent = self._sent.copy()
        sent.update(chunk)
        self._sent = sent

    def finish(self, reply: Reply, *, retried: bool = False) -> RunResult:
        """The result. Raises Refusal; StreamMismatch when a stream is not what the reply says; UntrustedReply when the
        reply lacks what every run's has."""
        said = answer(reply)
        if said.receipt is None or said.intent is None:
            raise UntrustedReply("a run's reply without receipts")
        fields = Fields(said.result, "result", "bad_reply")
        try:
            streams = _records(fields)
            uncollected = tuple(fields.optional("uncollected", list) or ())
            given_up = {f"{FILE}{path}" for path in uncollected}
            missing = self._check(streams, given_up, retried)
            for name in given_up:
                self._kept.pop(name, None)
            return self._result(fields, streams, said.receipt, said.intent, uncollected, missing)
        except Refused as error:
            raise UntrustedReply(f"the result cannot be read: {error.message}") from None

    def _result(
        self,
        fields: Fields,
        streams: Mapping[str, StreamRecord],
        receipt: Receipt,
        intent: Receipt,
        uncollected: tuple[str, ...],
        missing: tuple[str, ...],
    ) -> RunResult:
        files = {
            path: content for path, content in (fields.optional("files", dict) or {}).items() if type(content) is bytes
        }
        files |= {name[len(FILE) :]: bytes(kept) for name, kept in self._kept.items() if name.startswith(FILE)}
        files |= {
            name[len(FILE) :]: b"" for name, record in streams.items() if name.startswith(FILE) and not record.length
        }
        told = [row for row in fields.optional("violations", list) or () if isinstance(row, dict)]
        return RunResult(
            sandbox=fields.required("sandbox", str),
            cause=fields.required("cause", str),
            exit_code=fields.optional("exit_code", int),
            signal=fields.optional("signal", int),
            stdout=self._output(fields, "stdout"),
            stderr=self._output(fields, "stderr"),
            streams=streams,
            files=files,
            usage=fields.optional("usage", dict) or {},
            violations=tuple(Violation.of(row) for row in told if "count" not in row),
            violation_counts={str(row.get("kind")): row["count"] for row in told if type(row.get("count")) is int},
            enforcement=fields.optional("enforcement", dict) or {},
            events=fields.optional("events", dict) or {},
            failure=fields.optional("failure", dict),
            receipt=receipt,
            intent=intent,
            uncollected=uncollected,
            exec=fields.optional("exec", str),
            missing=missing,
            executables=tuple(row for row in fields.optional("executables", list) or () if isinstance(row, dict)),
            raw=fields.values,
        )

    def _output(self, fields: Fields, name: str) -> bytes:
        if name in self._kept:
            return bytes(self._kept[name])
        return fields.optional(name, bytes) or b""

    def _check(self, streams: Mapping[str, StreamRecord], given_up: Set[str], retried: bool) -> tuple[str, ...]:
        """Compares every stream that came as data, or should have, with what the reply signs."""
        missing = []
        due = {name for name in streams if name in self._order.streamed or name.startswith(FILE)}
        for name in sorted((due | self._digests.keys()) - given_up):
            record, got = streams.get(name, StreamRecord()), self._digests.get(name, _Digest())
            if got.matches(record):
                continue
            if not retried:
                raise StreamMismatch(
                    name, f"{got.length} bytes came, and they are not the {record.length} that are signed"
                )
            missing.append(name)
        stdin = streams.get("stdin")
        sent = self._sent
        # A command may end before it has read all: then the daemon has less, never more, never other bytes.
        if sent.length and stdin is not None and (stdin.length > sent.length or sent.contradicts(stdin)):
            raise StreamMismatch("stdin", f"{sent.length} bytes were sent, and others are signed")
        return tuple(missing)


class _Digest:
    __slots__ = ("_hash", "length")

    def __init__(self) -> None:
        self.length = 0
        self._hash = hashlib.sha256()

    def update(self, data: bytes) -> None:
        self.length += len(data)
        self._hash.update(data)

    def copy(self) -> _Digest:
        other = _Digest()
        other.length, other._hash = self.length, self._hash.copy()
        return other

    def contradicts(self, record: StreamRecord) -> bool:
        return record.length == self.length and not self.matches(record)

    def matches(self, record: StreamRecord) -> bool:
        if record.length != self.length:
            return False
        return self._hash.digest() == record.sha256 or (not record.length and not record.sha256)


def _records(fields: Fields) -> dict[str, StreamRecord]:
    records = {}
    for name, value in (fields.optional("streams", dict) or {}).items():
        if type(value) is not dict:
            raise fields.wrong("streams", "holds something that is not a map")
        inner = Fields(value, f"result.streams.{name}", fields.code)
        records[name] = StreamRecord(
            length=inner.integer("length", 0, 2**63) or 0,
            sha256=inner.sized("sha256", bytes, 32, 32) or b"",
            truncated=inner.optional("truncated", bool) or False,
            passed=inner.optional("passed", bool) or False,
        )
    return records
