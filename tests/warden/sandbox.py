"""A sandbox as its keeper has it, and execs in it, ordered about as the launcher would."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import mmap
import os
import select
import struct
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from immured.isolation import abi, messages
from immured.isolation.abi import Cause, Clerk, Message, PlanKind
from immured.isolation.messages import Exited, Failed, Frozen, Kept, Measures
from tests.warden.cell import PATIENCE_S, Cell, Peer, Pipes, Run, Wish

__all__ = ["Exec", "Log", "Sandbox", "shell"]

CREATE: Final = 129
ASK: Final = 130
ALONE: Final = 131
AGAIN: Final = 132
OVER: Final = 161
CREATED: Final = 162
SANDBOX: Final = 1
EMPTY: Final = Wish(["-"])
ROOT: Final = Peer()
_NUMBERS = itertools.count(100)


def shell(script: str, **options: object) -> Wish:
    """`sh -c SCRIPT`."""
    return replace(Wish(["sh", "-c", script]), **options)  # type: ignore[arg-type]


class Log:
    """A kept exec's log as the broker makes and reads it."""

    def __init__(self, capacity: int = abi.LOG_MIN) -> None:
        self.memory = os.memfd_create("log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.memory, abi.LOG_PAGE + capacity)
        fcntl.fcntl(self.memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        self.event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.map = mmap.mmap(self.memory, abi.LOG_PAGE + capacity, prot=mmap.PROT_READ)

    def close(self) -> None:
        os.close(self.memory)
        os.close(self.event)
        self.map.close()

    def head(self) -> tuple[int, int, int, int, int, int]:
        """magic, capacity, start, end, bytes of 1, bytes of 2."""
        return struct.unpack_from("=IIQQQQ", self.map)

    def records(self) -> list[tuple[int, bytes]]:
        """What is whole: stream and bytes."""
        _, capacity, at, end, _, _ = self.head()
        ring = self.map[abi.LOG_PAGE :]
        found = []
        while at < end:
            _, stream, length = struct.unpack_from("=QII", ring, at % capacity)
            first = at + 16
            found.append((stream, bytes(ring[(first + i) % capacity] for i in range(length))))
            at = first + -(-length // 16) * 16
        return found

    def text(self, stream: int = 1) -> bytes:
        return b"".join(data for number, data in self.records() if number == stream)


@dataclass
class Exec:
    """One that was ordered. Its descriptors are the test's to close by `close`."""

    sandbox: Sandbox
    number: int
    gate: int
    pipes: Pipes | None = None
    log: Log | None = None
    stdin: int = -1
    terminal: int = -1
    ended: Exited | Failed | None = None
    files: list[int] = field(default_factory=list)

    def go(self) -> Exec:
        with contextlib.suppress(BrokenPipeError):
            os.write(self.gate, b"g")
        self.call_off()
        return self

    def call_off(self) -> None:
        gate, self.gate = self.gate, -1
        if gate >= 0:
            os.close(gate)

    def say(self, kind: int, body: bytes = b"", fds: Sequence[int] = ()) -> None:
        self.sandbox.say(kind, self.number, body, fds)

    def kill(self, cause: Cause = Cause.KILLED) -> None:
        self.say(Message.KILL, struct.pack("=II", cause, 0))

    def signal(self, number: int, *, everybody: bool = False) -> None:
        self.say(Message.SIGNAL, struct.pack("=II", number, everybody))

    def resize(self, rows: int, columns: int) -> None:
        self.say(Message.RESIZE, struct.pack("=HHI", rows, columns, 0))

    def wait_for_output(self, wanted: bytes) -> None:
        assert self.pipes is not None
        self.pipes.wait_for(wanted)

    def wait_for_log(self, wanted: bytes) -> None:
        """Until this is in it: the eventfd says when to look again."""
        assert self.log is not None
        while wanted not in self.log.text():
            ready, _, _ = select.select([self.log.event], [], [], PATIENCE_S)
            assert ready, self.log.text()
            os.eventfd_read(self.log.event)

    def kept(self) -> tuple[Kept, list[int]]:
        """What a new broker hears of it."""
        _, body, fds = self.sandbox.hear(self.number, Message.KEPT)
        return messages.parse_kept(body), fds

    def outcome(self) -> Exited | Failed:
        """Of one that is over, or will be."""
        if self.ended is None:
            kind, body, self.files = self.sandbox.hear(self.number, Message.EXITED, Message.FAILED)
            self.ended = messages.parse_failed(body) if kind == Message.FAILED else messages.parse_exited(body)
        return self.ended

    def exited(self) -> Exited:
        outcome = self.outcome()
        assert isinstance(outcome, Exited), outcome
        return outcome

    def failed(self) -> Failed:
        outcome = self.outcome()
        assert isinstance(outcome, Failed), outcome
        return outcome

    def result(self) -> Run:
        outcome = self.exited()
        assert self.pipes is not None
        return Run(outcome, *self.pipes.read_all(), self.files)

    def close(self) -> None:
        self.call_off()
        if self.pipes:
            self.pipes.__exit__(None, None, None)
        if self.log:
            self.log.close()
        for fd in (self.stdin, self.terminal, *self.files):
            if fd >= 0:
                os.close(fd)


class Sandbox:
    """What a cell becomes by CREATE. Leaving the block ends it, and closes what its execs left to the test."""

    def __init__(self, cell: Cell, wish: Wish = EMPTY, peer: Peer = ROOT, *, record: bytes | int = b"") -> None:
        self.cell = cell
        self.name = wish.sandbox or f"sandbox-{next(_NUMBERS)}"
        self.tenant = wish.tenant
        self.execs: list[Exec] = []
        self.record = os.memfd_create("record") if isinstance(record, bytes) else os.dup(record)
        if isinstance(record, bytes):
            os.write(self.record, record)
        self._heard: dict[int, deque[tuple[int, bytes, list[int]]]] = defaultdict(deque)
        plan = replace(wish, sandbox=self.name).packed(PlanKind.SANDBOX)
        body = struct.pack("=6I", peer.uid, peer.gid, len(peer.groups), len(plan), 0, 0)
        body += struct.pack(f"={len(peer.groups)}I", *peer.groups)
        body += b"\0" * (-(messages.HEADER.size + len(body)) % 8)
        self.say(CREATE, SANDBOX, body + plan, [self.record])

    def __enter__(self) -> Sandbox:
        self.created()
        return self

    def __exit__(self, *_: object) -> None:
        self.cell.close()
        for one in self.execs:
            one.close()
        os.close(self.record)

    def created(self) -> None:
        """Waits until it lives."""
        kind, body, _ = self.hear(SANDBOX, Message.CREATED, Message.FAILED)
        assert kind == Message.CREATED, messages.parse_failed(body)
        self.hear(SANDBOX, CREATED)

    def say(self, kind: int, number: int = SANDBOX, body: bytes = b"", fds: Sequence[int] = ()) -> None:
        self.cell.say(kind, body, fds, number)

    def hear(self, number: int, *kinds: int) -> tuple[int, bytes, list[int]]:
        """The next that is said about this one, of these kinds; what is said of others waits."""
        while True:
            waiting = self._heard[number]
            for at, (kind, _, _) in enumerate(waiting):
                if kind in kinds:
                    del_at = waiting[at]
                    del waiting[at]
                    return del_at
            kind, about, body, fds = self.cell.hear()
            self._heard[about].append((kind, body, fds))

    def said(self, number: int) -> list[int]:
        """The kinds of what was said about this one, and not asked for yet."""
        return [kind for kind, _, _ in self._heard[number]]

    # --- execs

    def order(
        self,
        wish: Wish,
        stdio: Sequence[int],
        more: Sequence[int] = (),
        *,
        flags: int = 7 * abi.OURS_0,
        sandbox: str = "",
        number: int = 0,
    ) -> Exec:
        """EXEC, with its GO to come."""
        number = number or next(_NUMBERS)
        named = replace(wish, tenant=sandbox or self.name, sandbox=wish.sandbox or f"exec-{number}")
        plan = named.packed(PlanKind.EXEC)
        read, write = os.pipe()
        one = Exec(self, number, write)
        self.execs.append(one)
        in_memfd = len(plan) > abi.MAX_PACKET - 4096
        body = struct.pack("=QII", SANDBOX, len(plan), flags | (abi.PLAN_IN_MEMFD if in_memfd else 0))
        first = []
        if in_memfd:
            first.append(os.memfd_create("plan"))
            os.write(first[0], plan)
        one.say(Message.EXEC, body if in_memfd else body + plan, [*first, *stdio, read, *more])
        for fd in (*first, read):
            os.close(fd)
        return one

    def start(self, wish: Wish, stdin: bytes = b"") -> Exec:
        """An exec with pipes that the test reads, and its GO."""
        pipes = Pipes(stdin)
        one = self.order(wish, pipes.theirs)
        pipes.close_theirs()
        one.pipes = pipes
        return one.go()

    def run(self, wish: Wish, stdin: bytes = b"") -> Run:
        """The whole way of one."""
        return self.start(wish, stdin).result()

    def refused(self, wish: Wish) -> Failed:
        return self.start(wish).failed()

    def keep(self, wish: Wish, capacity: int = abi.LOG_MIN) -> Exec:
        """A kept exec, with its GO; `stdin` is the test's end of it."""
        log = Log(capacity)
        out, err, into = os.pipe(), os.pipe(), os.pipe()
        one = self.order(
            wish,
            [into[0], out[1], err[1]],
            [log.memory, log.event, out[0], err[0], into[1]],
            flags=7 * abi.OURS_0 | abi.EXEC_KEPT,
        )
        one.log, one.stdin = log, into[1]
        for fd in (*out, *err, into[0]):
            os.close(fd)
        return one.go()

    def sit(self, wish: Wish, rows: int = 24, columns: int = 80, *, kept: bool = False) -> Exec:
        """An exec at a terminal, whose master is the test's."""
        null = os.open("/dev/null", os.O_RDWR)
        log = Log() if kept else None
        more = [log.memory, log.event, null, null, null] if log else []
        one = self.order(replace(wish, terminal=(rows, columns)), [null] * 3, more, flags=abi.EXEC_KEPT if kept else 0)
        os.close(null)
        one.log = log
        kind, body, fds = self.hear(one.number, Message.TERMINAL, Message.FAILED)
        assert kind == Message.TERMINAL, messages.parse_failed(body)
        [one.terminal] = fds
        return one.go()

    # --- the sandbox

    def kill(self, cause: Cause = Cause.KILLED) -> Exited:
        self.say(Message.KILL, SANDBOX, struct.pack("=II", cause, 0))
        return self.ended()

    def ended(self) -> Exited:
        kind, body, _ = self.hear(SANDBOX, Message.EXITED, Message.FAILED)
        assert kind == Message.EXITED, messages.parse_failed(body)
        return messages.parse_exited(body)

    def failed(self) -> Failed:
        """Why it never lived."""
        kind, body, _ = self.hear(SANDBOX, Message.FAILED, Message.CREATED)
        assert kind == Message.FAILED
        return messages.parse_failed(body)

    def freeze(self, on: bool) -> Frozen:
        self.say(Message.FREEZE, SANDBOX, struct.pack("=II", on, 0))
        return messages.parse_frozen(self.hear(SANDBOX, Message.FROZEN)[1])

    def extend(self, seconds: float) -> None:
        self.say(Message.EXTEND, SANDBOX, struct.pack("=Q", int(seconds * 1e9)))

    def measure(self) -> Measures:
        self.say(Message.MEASURE)
        return messages.parse_measures(self.hear(SANDBOX, Message.MEASURES)[1])

    def again(self) -> tuple[Kept, list[int]]:
        """A new broker: what it hears of the sandbox."""
        self.say(AGAIN)
        _, body, fds = self.hear(SANDBOX, Message.KEPT)
        return messages.parse_kept(body), fds

    def ask(self, clerk: Clerk, socket: int, peer: Peer | None = None) -> None:
        uid, gid, groups = (peer.uid, peer.gid, peer.groups) if peer else (0xFFFFFFFF, 0xFFFFFFFF, ())
        self.say(ASK, SANDBOX, struct.pack(f"=4I{len(groups)}I", uid, gid, len(groups), clerk, *groups), [socket])
