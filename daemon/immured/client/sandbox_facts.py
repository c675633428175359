"""What the daemon says of sandboxes and their execs, typed. Fields of a later version are kept in `raw`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from immured.errors import Refused
from immured.wire.strict import Fields, kind_of

__all__ = ["ExecFacts", "LogPage", "LogRecord", "SandboxFacts", "SandboxStats", "log_page", "stats_of"]

_CODE = "bad_reply"


@dataclass(frozen=True, slots=True)
class SandboxFacts:
    """A sandbox as the daemon had it when it was asked. Times are milliseconds since the epoch."""

    id: str
    state: str
    """`creating`, `ready`, `paused`, `ending`, `ended` or `failed`."""
    name: str | None
    labels: Mapping[str, str]
    tenant: str
    key: str
    """The id of the key that made it."""
    created_ms: int
    expires_ms: int
    execs: int
    """How many live."""
    manifest: str
    restart: str
    """What becomes of it when the daemon dies: `adopt` or `end`."""
    enforcement: Mapping[str, str] = field(default_factory=dict)
    """Limit to the means that enforces it."""
    ended_ms: int | None = None
    cause: str | None = None
    """Of one that is over: what ended it."""
    usage: Mapping[str, int] = field(default_factory=dict)
    project: str = "default"
    raw: Mapping[str, object] = field(default_factory=dict, repr=False)

    @property
    def live(self) -> bool:
        """Whether it is not over."""
        return self.state not in ("ended", "failed")

    @classmethod
    def unasked(cls, word: str) -> SandboxFacts:
        """Of one that nobody asked about yet: its id (or name) alone."""
        return cls.of({"sandbox": word, "state": "unknown"})

    @classmethod
    def of(cls, row: object) -> SandboxFacts:
        """One row. Raises Refused `bad_reply`."""
        fields = _fields(row, "a sandbox")
        labels = fields.optional("labels", dict) or {}
        return cls(
            id=fields.required("sandbox", str),
            state=fields.required("state", str),
            name=fields.optional("name", str),
            labels={name: value for name, value in labels.items() if isinstance(value, str)},
            tenant=fields.optional("tenant", str) or "",
            key=fields.optional("key", str) or "",
            created_ms=fields.optional("created_ms", int) or 0,
            expires_ms=fields.optional("expires_ms", int) or 0,
            execs=fields.optional("execs", int) or 0,
            manifest=fields.optional("manifest", str) or "",
            restart=fields.optional("restart", str) or "",
            enforcement=_texts(fields.optional("enforcement", dict)),
            ended_ms=fields.optional("ended_ms", int),
            cause=fields.optional("cause", str),
            usage=_integers(fields.optional("usage", dict)),
            project=fields.optional("project", str) or "default",
            raw=fields.values,
        )


@dataclass(frozen=True, slots=True)
class ExecFacts:
    """An exec as the daemon had it. Times are milliseconds since the epoch."""

    id: str
    state: str
    """`preparing`, `running` or `ended`."""
    command: str
    """A bounded line for people."""
    started_ms: int
    detached: bool
    terminal: bool
    ended_ms: int | None
    cause: str | None
    exit_code: int | None
    signal: int | None
    raw: Mapping[str, object] = field(default_factory=dict, repr=False)

    @property
    def live(self) -> bool:
        """Whether it is not over."""
        return self.state != "ended"

    @classmethod
    def of(cls, row: object) -> ExecFacts:
        """One row. Raises Refused `bad_reply`."""
        fields = _fields(row, "an exec")
        return cls(
            id=fields.required("exec", str),
            state=fields.required("state", str),
            command=fields.optional("command", str) or "",
            started_ms=fields.optional("started_ms", int) or 0,
            detached=fields.optional("detached", bool) or False,
            terminal=fields.optional("terminal", bool) or False,
            ended_ms=fields.optional("ended_ms", int),
            cause=fields.optional("cause", str),
            exit_code=fields.optional("exit_code", int),
            signal=fields.optional("signal", int),
            raw=fields.values,
        )


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A piece of a detached exec's output."""

    time_ms: int
    """When its warden read it, milliseconds since the epoch."""
    stream: str
    data: bytes


@dataclass(frozen=True, slots=True)
class LogPage:
    """Part of a detached exec's log. Offsets count bytes of its output, of both streams together."""

    start: int
    """Where this part begins: later than asked, where what was before is overwritten."""
    next: int
    """Where the next part begins."""
    lost: int
    """Bytes between what was asked for and `start`."""
    live: bool
    """Whether more may come."""
    records: tuple[LogRecord, ...]

    @property
    def output(self) -> bytes:
        """Both streams, as they came."""
        return b"".join(record.data for record in self.records)

    def of(self, stream: str) -> bytes:
        """What came on one stream."""
        return b"".join(record.data for record in self.records if record.stream == stream)


@dataclass(frozen=True, slots=True)
class SandboxStats:
    """What a sandbox has used so far; what was not measured is absent or None."""

    usage: Mapping[str, int]
    """As a run's, of all its execs together."""
    memory_bytes: int | None
    pids: int | None
    execs: int
    disk_bytes: int | None
    """Of its own writable places."""
    disk_files: int | None
    raw: Mapping[str, object] = field(default_factory=dict, repr=False)


def log_page(values: Mapping[str, object]) -> LogPage:
    """The result of `sandbox.logs`. Raises Refused `bad_reply`."""
    fields = Fields(values, "result", _CODE)
    records = []
    for row in fields.optional("records", list) or []:
        one = _fields(row, "a record")
        records.append(
            LogRecord(one.optional("time_ms", int) or 0, one.required("stream", str), one.required("data", bytes))
        )
    return LogPage(
        start=fields.optional("from", int) or 0,
        next=fields.required("next", int),
        lost=fields.optional("lost", int) or 0,
        live=fields.optional("live", bool) or False,
        records=tuple(records),
    )


def stats_of(values: Mapping[str, object]) -> SandboxStats:
    """The result of `sandbox.stats`. Raises Refused `bad_reply`."""
    fields = Fields(values, "result", _CODE)
    return SandboxStats(
        usage=_integers(fields.optional("usage", dict)),
        memory_bytes=fields.optional("memory_bytes", int),
        pids=fields.optional("pids", int),
        execs=fields.optional("execs", int) or 0,
        disk_bytes=fields.optional("disk_bytes", int),
        disk_files=fields.optional("disk_files", int),
        raw=values,
    )


def _fields(row: object, where: str) -> Fields:
    if not isinstance(row, dict):
        raise Refused(_CODE, f"{where} is {kind_of(row)}, not a map")
    return Fields(row, where, _CODE)


def _integers(values: Mapping[str, object] | None) -> dict[str, int]:
    return {name: value for name, value in (values or {}).items() if type(value) is int}


def _texts(values: Mapping[str, object] | None) -> dict[str, str]:
    return {name: value for name, value in (values or {}).items() if isinstance(value, str)}
