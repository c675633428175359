"""The launcher's packets as values, both ways. Pure: bytes in, dataclasses out; descriptors are launcher.py's."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from immured.isolation import abi
from immured.isolation.abi import Ability, Cause, Clerk, Controller, KeptKind, Measured, Message, Stage, ViolationKind

__all__ = [
    "HEADER",
    "LOST",
    "Counts",
    "Exited",
    "Failed",
    "Frozen",
    "Kept",
    "Measures",
    "Peer",
    "PinnedFile",
    "ProtocolError",
    "Ready",
    "Violation",
    "encode_ask",
    "encode_close_stdin",
    "encode_connection_closed",
    "encode_count",
    "encode_create",
    "encode_exec",
    "encode_extend",
    "encode_freeze",
    "encode_kill",
    "encode_measure",
    "encode_pause",
    "encode_prepare",
    "encode_resize",
    "encode_signal",
    "encode_stop",
    "encode_turn_away",
    "parse_counts",
    "parse_exited",
    "parse_failed",
    "parse_frozen",
    "parse_kept",
    "parse_measures",
    "parse_peer",
    "parse_pinned",
    "parse_ready",
]

HEADER: Final = struct.Struct("=IIQ")
_PREPARE: Final = struct.Struct("=QII")
_KILL: Final = struct.Struct("=II")
_EXEC: Final = struct.Struct("=QII")
_SIGNAL: Final = struct.Struct("=II")
_FREEZE: Final = struct.Struct("=II")
_EXTEND: Final = struct.Struct("=Q")
_RESIZE: Final = struct.Struct("=HHI")
_ASK: Final = struct.Struct("=QII")
_KEPT: Final = struct.Struct("=QIIIIQQ")
_PINNED: Final = struct.Struct("=II")
_PINNED_FILE: Final = struct.Struct("=QIHH32s")
_MORE_MEASURES: Final = struct.Struct("=5Q")  # what imd_measures has behind its imd_outcome
_READY: Final = struct.Struct("=8I")
_CONN: Final = struct.Struct("=IIiI")
_TURN_AWAY: Final = struct.Struct("=II")
_COUNT_ID: Final = 16
_COUNTED: Final = struct.Struct("=3Q")  # what imd_counts has behind its id
_FAILED: Final = struct.Struct("=IIiI")
_OUTCOME: Final = struct.Struct("=IIii14Q")
_VIOLATIONS: Final = struct.Struct("=II3Q")
_VIOLATION: Final = struct.Struct("=IIiHH3Q")
_NO_STEP: Final = 2**32 - 1

for _name, _form in (
    ("imd_header", HEADER),
    ("imd_prepare", _PREPARE),
    ("imd_kill", _KILL),
    ("imd_exec", _EXEC),
    ("imd_signal", _SIGNAL),
    ("imd_freeze", _FREEZE),
    ("imd_extend", _EXTEND),
    ("imd_resize", _RESIZE),
    ("imd_ask", _ASK),
    ("imd_kept", _KEPT),
    ("imd_pinned", _PINNED),
    ("imd_pinned_file", _PINNED_FILE),
    ("imd_ready", _READY),
    ("imd_conn", _CONN),
    ("imd_failed", _FAILED),
    ("imd_outcome", _OUTCOME),
    ("imd_violations", _VIOLATIONS),
    ("imd_violation", _VIOLATION),
):
    if abi.size_of(_name) != _form.size:  # pragma: no cover
        raise ImportError(f"struct {_name} is not of this source: run `make build`")
if abi.size_of("imd_counts") != _COUNT_ID + _COUNTED.size:  # pragma: no cover
    raise ImportError("struct imd_counts is not of this source: run `make build`")
if abi.size_of("imd_measures") != _OUTCOME.size + _MORE_MEASURES.size:  # pragma: no cover
    raise ImportError("struct imd_measures is not of this source: run `make build`")


class ProtocolError(Exception):
    """The launcher sent what its protocol does not hold: the two are not of one build."""


NO_ABILITY: Final = Ability(0)


@dataclass(frozen=True, slots=True)
class Ready:
    """The launcher's greeting: what its host gives, and the numbers of sandboxes that live from before this broker."""

    version: int
    controllers: Controller
    landlock_abi: int
    slot_base: int
    slot_count: int
    swap: bool
    cgroup: str
    sandboxes: tuple[int, ...] = ()
    abilities: Ability = NO_ABILITY


@dataclass(frozen=True, slots=True)
class Counts:
    """`struct imd_counts`: the payloads that this launcher, and those that it was before, let go."""

    id: str
    """Of the count, hex."""
    since_ns: int
    started: int
    undone: int

    @property
    def ran(self) -> int:
        """Payloads that were executed."""
        return self.started - self.undone


@dataclass(frozen=True, slots=True)
class Peer:
    """Who connected, as the kernel said at accept: the ids of the process that called connect(), and the path of its
    program, empty where that is not known. A user can run what he likes by any name: `exe` is for the record alone."""

    uid: int
    gid: int
    pid: int
    groups: tuple[int, ...]
    exe: bytes = b""


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


@dataclass(frozen=True, slots=True)
class Measures:
    """`struct imd_measures`: a live sandbox's figures. `so_far` counts from its creation, and says in `measured` which
    of it is real; bytes, processes, execs that live, files of its own writable places together."""

    so_far: Exited
    memory_now: int
    pids_now: int
    execs: int
    disk_used: int
    disk_files: int


@dataclass(frozen=True, slots=True)
class Frozen:
    """`struct imd_freeze`, as FROZEN: how it is now. `errno`: what kept it from becoming as asked; 0: nothing."""

    on: bool
    errno: int


@dataclass(frozen=True, slots=True)
class Kept:
    """`struct imd_kept`: a sandbox, or an exec in it, that lived on without a broker. `execs` are a sandbox's, of which
    each is told of; `started_ns` is of the realtime clock, `wall_left_ns` what a sandbox has to live."""

    sandbox: int
    kind: KeptKind
    execs: int
    frozen: bool
    started: bool
    started_ns: int
    wall_left_ns: int


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """`struct imd_pinned_file`: the next thing that a run is to execute, or that reads the one before. `path` as it was
    looked up, perhaps relative to the working directory; `argument`: what `#!` gives it, empty for nothing.

    `sha256` and `size` of what the payload's process read; None and 0 for one that only root can change: its
    descriptor comes along.
    """

    path: bytes
    argument: bytes
    sha256: bytes | None
    size: int


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


def encode_create(sandbox: int, connection: int, plan: bytes, *, in_memfd: bool) -> bytes:
    """CREATE, whose last descriptor is the record; the plan's bytes as with PREPARE. `connection` 0: nobody's."""
    fixed = _PREPARE.pack(connection, len(plan), abi.PLAN_IN_MEMFD if in_memfd else 0)
    return _packet(Message.CREATE, sandbox, fixed if in_memfd else fixed + plan)


def encode_exec(
    number: int,
    sandbox: int,
    plan: bytes,
    *,
    in_memfd: bool,
    ours: Iterable[int] = (),
    logged: bool = False,
    kept: bool = False,
) -> bytes:
    """EXEC: as PREPARE, in a sandbox that lives. `kept`: the descriptors of a log come behind GO's."""
    flags = (abi.PLAN_IN_MEMFD if in_memfd else 0) | (abi.WITH_LOG if logged else 0) | (abi.EXEC_KEPT if kept else 0)
    for place in ours:
        flags |= abi.OURS_0 << place
    fixed = _EXEC.pack(sandbox, len(plan), flags)
    return _packet(Message.EXEC, number, fixed if in_memfd else fixed + plan)


def encode_signal(number: int, signo: int, *, everybody: bool) -> bytes:
    """SIGNAL, to an exec's first process or terminal, or to everybody in it."""
    return _packet(Message.SIGNAL, number, _SIGNAL.pack(signo, everybody))


def encode_resize(number: int, rows: int, columns: int) -> bytes:
    """RESIZE, of an exec's terminal."""
    return _packet(Message.RESIZE, number, _RESIZE.pack(rows, columns, 0))


def encode_close_stdin(number: int) -> bytes:
    """CLOSE_STDIN, of a kept exec."""
    return _packet(Message.CLOSE_STDIN, number)


def encode_freeze(sandbox: int, *, on: bool) -> bytes:
    """FREEZE, or thaw: answered by FROZEN."""
    return _packet(Message.FREEZE, sandbox, _FREEZE.pack(on, 0))


def encode_extend(sandbox: int, wall_ns: int) -> bytes:
    """EXTEND: so long to live from now on."""
    return _packet(Message.EXTEND, sandbox, _EXTEND.pack(wall_ns))


def encode_measure(sandbox: int) -> bytes:
    """MEASURE: answered by MEASURES."""
    return _packet(Message.MEASURE, sandbox)


def encode_ask(sandbox: int, clerk: Clerk, connection: int) -> bytes:
    """ASK: a clerk serves the socket that comes along; `connection` is whose authority it acts by, 0: nobody's."""
    return _packet(Message.ASK, sandbox, _ASK.pack(connection, clerk, 0))


def encode_kill(run: int, cause: Cause) -> bytes:
    """KILL, for the cause that the outcome shall name."""
    return _packet(Message.KILL, run, _KILL.pack(cause, 0))


def encode_connection_closed(connection: int) -> bytes:
    """CONN_CLOSED: the launcher forgets who it was."""
    return _packet(Message.CONN_CLOSED, connection)


def encode_turn_away(uid: int, ms: int) -> bytes:
    """TURN_AWAY: who connects as that user is let go at once, for so long."""
    return _packet(Message.TURN_AWAY, 0, _TURN_AWAY.pack(uid, ms))


def encode_count() -> bytes:
    """COUNT: answered by COUNTS."""
    return _packet(Message.COUNT, 0)


def encode_stop() -> bytes:
    """STOP: accept nobody any more."""
    return _packet(Message.STOP, 0)


def encode_pause() -> bytes:
    """PAUSE: accept nobody until another broker is there."""
    return _packet(Message.PAUSE, 0)


def parse_ready(body: bytes) -> Ready:
    """Raises ProtocolError where the launcher speaks another version, or names fewer sandboxes than it announced."""
    version, controllers, landlock, base, count, swap, sandboxes, abilities = _unpack(_READY, body)
    if version != abi.PROTOCOL_VERSION:
        raise ProtocolError(f"the launcher speaks protocol {version}, this package {abi.PROTOCOL_VERSION}")
    numbers = _unpack(struct.Struct(f"={sandboxes}Q"), body[_READY.size :])
    path = body[_READY.size + 8 * sandboxes :].decode("utf-8", "surrogateescape")
    return Ready(version, Controller(controllers), landlock, base, count, bool(swap), path, numbers, Ability(abilities))


def parse_counts(body: bytes) -> Counts:
    """Raises ProtocolError on a body that is too short."""
    since, started, undone = _unpack(_COUNTED, body[_COUNT_ID:])
    return Counts(body[:_COUNT_ID].hex(), since, started, undone)


def parse_measures(body: bytes) -> Measures:
    """Raises ProtocolError on a body that is too short."""
    _, measured, *rest = _unpack(_OUTCOME, body)
    return Measures(Exited(Cause.EXITED, Measured(measured), *rest), *_unpack(_MORE_MEASURES, body[_OUTCOME.size :]))


def parse_frozen(body: bytes) -> Frozen:
    """Raises ProtocolError on a body that is too short."""
    on, error = _unpack(_FREEZE, body)
    return Frozen(bool(on), error)


def parse_kept(body: bytes) -> Kept:
    """Raises ProtocolError on a kind that this build does not know."""
    sandbox, kind, execs, frozen, started, started_ns, left = _unpack(_KEPT, body)
    try:
        return Kept(sandbox, KeptKind(kind), execs, bool(frozen), bool(started), started_ns, left)
    except ValueError as error:
        raise ProtocolError(f"KEPT of the unknown kind {kind}") from error


def parse_pinned(body: bytes) -> tuple[PinnedFile, ...]:
    """argv[0], then its interpreters. Raises ProtocolError on a file cut short, and on none at all."""
    count, _ = _unpack(_PINNED, body)
    at = _PINNED.size
    found: list[PinnedFile] = []
    for _ in range(count):
        if len(body) < at + _PINNED_FILE.size:
            raise ProtocolError("PINNED with a file cut short")
        size, flags, path, argument, digest = _PINNED_FILE.unpack_from(body, at)
        at += _PINNED_FILE.size
        names = body[at : at + path + argument]
        if len(names) < path + argument or not path:
            raise ProtocolError("PINNED with a file cut short")
        fixed = bool(flags & abi.PINNED_FIXED)
        found.append(PinnedFile(names[:path], names[path:], None if fixed else digest, 0 if fixed else size))
        at += path + argument
    if at != len(body) or not 1 <= count <= abi.MAX_PINNED:
        raise ProtocolError("PINNED with more or less than its files")
    return tuple(found)


def parse_peer(body: bytes) -> Peer:
    """Raises ProtocolError where there are fewer groups than announced."""
    uid, gid, pid, count = _unpack(_CONN, body)
    end = _CONN.size + 4 * count
    if len(body) < end:
        raise ProtocolError(f"CONN of {len(body)} bytes for {count} groups")
    return Peer(uid, gid, pid, struct.unpack_from(f"={count}I", body, _CONN.size), body[end:])


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
