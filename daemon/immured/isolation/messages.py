"""The launcher's packets as values, both ways. Pure: bytes in, dataclasses out; descriptors are launcher.py's."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from immured.isolation import abi
from immured.isolation.abi import Cause, Controller, Measured, Message, Stage, ViolationKind

__all__ = [
    "HEADER",
    "LOST",
    "Exited",
    "Failed",
    "Peer",
    "ProtocolError",
    "Ready",
    "Violation",
    "encode_connection_closed",
    "encode_kill",
    "encode_prepare",
    "encode_stop",
    "parse_exited",
    "parse_failed",
    "parse_peer",
    "parse_ready",
]

HEADER: Final = struct.Struct("=IIQ")
_PREPARE: Final = struct.Struct("=QII")
_KILL: Final = struct.Struct("=II")
_READY: Final = struct.Struct("=IIIIII")
_CONN: Final = struct.Struct("=IIiI")
_FAILED: Final = struct.Struct("=IIiI")
_OUTCOME: Final = struct.Struct("=IIii14Q")
_VIOLATIONS: Final = struct.Struct("=II3Q")
_VIOLATION: Final = struct.Struct("=IIiHH3Q")
_NO_STEP: Final = 2**32 - 1

for _name, _form in (
    ("imd_header", HEADER),
    ("imd_prepare", _PREPARE),
    ("imd_kill", _KILL),
    ("imd_ready", _READY),
    ("imd_conn", _CONN),
    ("imd_failed", _FAILED),
    ("imd_outcome", _OUTCOME),
    ("imd_violations", _VIOLATIONS),
    ("imd_violation", _VIOLATION),
):
    if abi.size_of(_name) != _form.size:  # pragma: no cover
        raise ImportError(f"struct {_name} is not of this source: run `make build`")


class ProtocolError(Exception):
    """The launcher sent what its protocol does not hold: the two are not of one build."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The launcher's greeting: what its host gives."""

    version: int
    controllers: Controller
    landlock_abi: int
    slot_base: int
    slot_count: int
    swap: bool
    cgroup: str


@dataclass(frozen=True, slots=True)
class Peer:
    """Who connected, as the kernel said at accept: the ids of the process that called connect()."""

    uid: int
    gid: int
    pid: int
    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """A run that ended before its first instruction. `step` is the plan's index, None for the cell's own set-up;
    `errno` 0 where no system call is to blame; `text` names the thing (a path, a rule), perhaps empty.
    """

    stage: Stage
    step: int | None
    errno: int
    text: str


@dataclass(frozen=True, slots=True)
class Violation:
    """`struct imd_violation`: a refused act. `number` and `arguments` (the first three) are the kernel's; `target` (a
    path, or a `struct sockaddr`) and `exe` were read from the process, and may be empty.
    """

    kind: ViolationKind
    number: int
    pid: int
    arguments: tuple[int, int, int]
    target: bytes
    exe: bytes


@dataclass(frozen=True, slots=True)
class Exited:
    """`struct imd_outcome`: nanoseconds and bytes; only what `measured` names was measured."""

    cause: Cause
    measured: Measured
    si_code: int
    si_status: int
    wall_ns: int = 0
    cpu_user_ns: int = 0
    cpu_system_ns: int = 0
    memory_peak: int = 0
    max_rss: int = 0
    oom_kills: int = 0
    oom_events: int = 0
    memory_max_events: int = 0
    pids_peak: int = 0
    pids_max_events: int = 0
    io_read: int = 0
    io_written: int = 0
    stragglers: int = 0
    collected: int = 0
    violations: tuple[Violation, ...] = field(default=(), kw_only=True)
    violation_counts: tuple[int, ...] = field(default=(), kw_only=True)
    unexplained: int = field(default=0, kw_only=True)


LOST: Final = Exited(Cause.KILLED, Measured(0), os.CLD_KILLED, signal.SIGKILL, stragglers=1)
"""The end of a run whose warden died: its tree was killed with its namespace, and nobody measured what it had done."""


def _packet(kind: Message, number: int, body: bytes = b"") -> bytes:
    return HEADER.pack(kind, HEADER.size + len(body), number) + body


def encode_prepare(
    run: int, connection: int, plan: bytes, *, in_memfd: bool, ours: Iterable[int] = (), logged: bool = False
) -> bytes:
    """PREPARE; with `in_memfd` the plan's bytes are the caller's to send as the first descriptor. `ours`: which of the
    descriptors 0, 1 and 2 are pipes of this process's own, whose owner the payload becomes. `logged`: one more comes
    last, a learning run's log."""
    flags = (abi.PLAN_IN_MEMFD if in_memfd else 0) | (abi.WITH_LOG if logged else 0)
    for place in ours:
        flags |= abi.OURS_0 << place
    fixed = _PREPARE.pack(connection, len(plan), flags)
    return _packet(Message.PREPARE, run, fixed if in_memfd else fixed + plan)


def encode_kill(run: int, cause: Cause) -> bytes:
    """KILL, for the cause that the outcome shall name."""
    return _packet(Message.KILL, run, _KILL.pack(cause, 0))


def encode_connection_closed(connection: int) -> bytes:
    """CONN_CLOSED: the launcher forgets who it was."""
    return _packet(Message.CONN_CLOSED, connection)


def encode_stop() -> bytes:
    """STOP: accept nobody any more."""
    return _packet(Message.STOP, 0)


def parse_ready(body: bytes) -> Ready:
    """Raises ProtocolError where the launcher speaks another version."""
    version, controllers, landlock, base, count, swap = _unpack(_READY, body)
    if version != abi.PROTOCOL_VERSION:
        raise ProtocolError(f"the launcher speaks protocol {version}, this package {abi.PROTOCOL_VERSION}")
    path = body[_READY.size :].decode("utf-8", "surrogateescape")
    return Ready(version, Controller(controllers), landlock, base, count, bool(swap), path)


def parse_peer(body: bytes) -> Peer:
    """Raises ProtocolError where the groups are not as many as announced."""
    uid, gid, pid, count = _unpack(_CONN, body)
    if len(body) != _CONN.size + 4 * count:
        raise ProtocolError(f"CONN of {len(body)} bytes for {count} groups")
    return Peer(uid, gid, pid, struct.unpack_from(f"={count}I", body, _CONN.size))


def parse_failed(body: bytes) -> Failed:
    """Raises ProtocolError on a stage that this build does not know."""
    stage, step, error, _ = _unpack(_FAILED, body)
    text = body[_FAILED.size :].rstrip(b"\0").decode("utf-8", "backslashreplace")
    try:
        return Failed(Stage(stage), None if step == _NO_STEP else step, error, text)
    except ValueError as error_:
        raise ProtocolError(f"FAILED at the unknown stage {stage}") from error_


def parse_exited(body: bytes) -> Exited:
    """Raises ProtocolError on a cause or a kind of violation that this build does not know, or a record cut short."""
    cause, measured, *rest = _unpack(_OUTCOME, body)
    violations, counts, unexplained = _violations(body[_OUTCOME.size :])
    try:
        return Exited(
            Cause(cause),
            Measured(measured),
            *rest,
            violations=violations,
            violation_counts=counts,
            unexplained=unexplained,
        )
    except ValueError as error:
        raise ProtocolError(f"EXITED for the unknown cause {cause}") from error


def _violations(body: bytes) -> tuple[tuple[Violation, ...], tuple[int, ...], int]:
    """The records, how many there were of each kind, how many calls nobody looked at. Nothing for nothing."""
    if not body:
        return (), (), 0
    records, unexplained, *counts = _unpack(_VIOLATIONS, body)
    found: list[Violation] = []
    at = _VIOLATIONS.size
    for _ in range(records):
        kind, number, pid, target, exe, *arguments = _unpack(_VIOLATION, body[at : at + _VIOLATION.size])
        at += _VIOLATION.size
        if len(body) < at + target + exe:
            raise ProtocolError("EXITED with a violation cut short")
        try:
            one = ViolationKind(kind)
        except ValueError as error:
            raise ProtocolError(f"EXITED with a violation of the unknown kind {kind}") from error
        first, second, third = arguments
        named, by = body[at : at + target], body[at + target : at + target + exe]
        found.append(Violation(one, number, pid, (first, second, third), named, by))
        at += target + exe
    if at != len(body):
        raise ProtocolError("EXITED with more than its violations")
    return tuple(found), tuple(counts), unexplained


def _unpack(form: struct.Struct, body: bytes) -> tuple[int, ...]:
    if len(body) < form.size:
        raise ProtocolError(f"a packet of {len(body)} bytes instead of {form.size}")
    return form.unpack_from(body)
