"""A warden of its own, ordered about as the launcher would: a plan, a peer, three descriptors."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final

from immured.host.syscalls import landlock_abi
from immured.isolation import abi, messages
from immured.isolation.abi import BindFlag, Cause, Message, Op, PlanKind
from immured.isolation.landlock import landlock_steps
from immured.isolation.messages import Exited, Failed
from immured.isolation.plan import Step
from tests.patience import PATIENCE_S

__all__ = ["ALLOW_ALL", "PATIENCE_S", "SLOT_BASE", "Cell", "Peer", "Pipes", "Run", "Wish", "bind", "file", "python"]

PREPARE: Final = 128
PARKED: Final = 160
# Far from the ranges of daemons on this machine, and from those of a suite that runs beside this one.
SLOT_BASE: Final = 0x7F000000 + os.getpid() % 64 * 4 * abi.SLOT_SIZE
ALLOW_ALL: Final = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
"""A filter that lets everything pass: the walls under test stand without one."""


_NUMBERS = itertools.count()


@dataclass(frozen=True)
class Peer:
    """Who the launcher says is calling."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()


@dataclass(frozen=True)
class Wish:
    """A plan in a test's words. `mounts` are BIND to FILE, in order."""

    argv: Sequence[str | bytes]
    cwd: str = "/tmp"
    env: Sequence[str] = ("PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/tmp")
    wall_s: float = 240.0
    cpu_s: float = 0.0
    kill_on_pids: bool = False
    memory: int = 0
    pids: int = 0
    quota_us: int = 0
    io_bps: int = 0
    swap: int = 0
    tenant: str = "tests"
    sandbox: str = ""
    collect: Sequence[str] = ()
    rootfs: str = ""
    mounts: Sequence[Step] = ()
    loopback: bool = False
    rlimits: Sequence[tuple[int, int, int]] = ()
    cpus: int = 0
    identity: int = abi.PAYLOAD_ID
    umask: int = 0o022
    program: bytes = ALLOW_ALL
    explained: bytes = b""
    halt: bool = False
    pin: bool = False
    terminal: tuple[int, int] | None = None

    def packed(self, kind: PlanKind = PlanKind.RUN) -> bytes:
        """`struct imd_plan` and its steps: those that a plan of this kind has. Of an EXEC `tenant` is the sandbox."""
        name = self.sandbox or f"run-{next(_NUMBERS)}"
        steps = [
            Step(Op.DEADLINES, (int(self.wall_s * 1e9), int(self.cpu_s * 1e9), int(self.kill_on_pids))),
            Step(
                Op.CGROUP,
                (self.memory, self.pids, self.quota_us, 100_000 if self.quota_us else 0, self.io_bps, self.swap),
                (self.tenant.encode(), name.encode()),
            ),
            *(Step(Op.COLLECT, (1 << 20,), (path.encode(),)) for path in self.collect),
            *([Step(Op.TERMINAL, self.terminal)] if self.terminal else []),
            *(self._mounted() if kind is not PlanKind.EXEC else ()),
            *(
                self._executed()
                if kind is not PlanKind.SANDBOX
                else [Step(Op.IDENTITY, (self.identity, self.identity))]
            ),
        ]
        body = b"".join(step.pack() for step in steps)
        head = struct.pack("=IHHII", abi.PLAN_MAGIC, abi.PROTOCOL_VERSION, kind, len(steps), 16 + len(body))
        return head + body

    def _mounted(self) -> list[Step]:
        return [
            *([Step(Op.ROOTFS, (), (self.rootfs.encode(),))] if self.rootfs else []),
            *self.mounts,
            Step(Op.SEAL_ROOT),
            *([Step(Op.LOOPBACK)] if self.loopback else []),
        ]

    def _executed(self) -> list[Step]:
        words = [one.encode() if isinstance(one, str) else one for one in self.argv]
        return [
            *(Step(Op.RLIMIT, limit) for limit in self.rlimits),
            *([Step(Op.AFFINITY, (self.cpus, 0), (b"",))] if self.cpus else []),
            Step(Op.UMASK, (self.umask,)),
            Step(Op.IDENTITY, (self.identity, self.identity)),
            Step(Op.DROP_CAPABILITIES),
            Step(Op.NO_NEW_PRIVS),
            *landlock_steps(landlock_abi(), network=self.loopback),
            *([Step(Op.PIN)] if self.pin else []),
            Step(Op.SECCOMP, (), (self.program,)),
            *([Step(Op.EXPLAIN, (int(self.halt),), (self.explained,))] if self.explained else []),
            Step(Op.EXEC, (len(words),), (self.cwd.encode(), *words, *(one.encode() for one in self.env))),
        ]


def bind(
    source: Path | str, target: Path | str | None = None, flags: int = 0, *, beneath: Path | str | None = None
) -> Step:
    """A host path inside, at the same path unless `target` says where. `beneath`: what no link may lead it out of."""
    place = source if target is None else target
    strings = (os.fsencode(source), os.fsencode(place))
    if beneath is None:
        return Step(Op.BIND, (flags,), strings)
    return Step(Op.BIND, (flags | BindFlag.BENEATH,), (*strings, os.fsencode(beneath)))


def file(target: str, content: bytes, mode: int = 0o644) -> Step:
    """A file that the plan puts in."""
    return Step(Op.FILE, (mode,), (target.encode(), content))


def python(program: str) -> list[str]:
    """A command that runs `program`, by the host's own interpreter."""
    return ["/usr/bin/python3", "-I", "-c", program]


@dataclass
class Run:
    """What came of a run that ended."""

    outcome: Exited
    stdout: bytes
    stderr: bytes
    files: list[int] = field(default_factory=list)

    @property
    def text(self) -> str:
        return self.stdout.decode()

    def succeeded(self) -> str:
        """The output, of a run that exited with 0."""
        assert self.outcome.cause is Cause.EXITED, (self.outcome, self.stderr.decode())
        assert self.outcome.si_status == 0, (self.outcome, self.stderr.decode())
        return self.text


class Cell:
    """A warden and the launcher's end of its socket. Leaving the block ends it."""

    def __init__(
        self,
        harness: Path,
        cgroup: Path | None,
        *,
        slot: int = 0,
        controllers: int = 0,
        open_timeout_ms: int = 90_000,
        grant_read: Sequence[Path] = (),
        grant_write: Sequence[Path] = (),
        park: bool = True,
    ) -> None:
        self.slot_base = SLOT_BASE + slot * abi.SLOT_SIZE
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(PATIENCE_S)
        self._gate = -1
        grants = [word for path in grant_read for word in ("read", str(path))]
        grants += [word for path in grant_write for word in ("write", str(path))]
        with contextlib.ExitStack() as failed, theirs:
            failed.callback(self.socket.close)
            number = theirs.fileno()
            arguments = [number, self.slot_base, cgroup or "-", controllers, open_timeout_ms, *grants]
            command = [str(harness), *map(str, arguments)]
            self.process = subprocess.Popen(command, pass_fds=[number], stdin=subprocess.DEVNULL)
            failed.pop_all()
        if park:
            try:
                kind, _, body, _ = self.hear()
                assert kind == PARKED, messages.parse_failed(body)
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> Cell:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """The launcher goes; returns when the warden has gone too."""
        self.socket.close()
        self.call_off()
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def say(self, kind: int, body: bytes = b"", fds: Sequence[int] = (), number: int = 1) -> None:
        data = messages.HEADER.pack(kind, messages.HEADER.size + len(body), number) + body
        socket.send_fds(self.socket, [data], fds)

    def hear(self) -> tuple[int, int, bytes, list[int]]:
        data, fds, _, _ = socket.recv_fds(self.socket, abi.MAX_PACKET, abi.MAX_COLLECT)
        if not data:
            raise EOFError("the warden is gone")
        kind, length, number = messages.HEADER.unpack_from(data)
        assert length == len(data)
        return kind, number, data[messages.HEADER.size :], fds

    def order(self, plan: bytes, fds: Sequence[int], peer: Peer = Peer(), *, in_memfd: bool = False) -> None:
        """PREPARE: what is wrong with it is heard as the outcome."""
        body = struct.pack("=6I", peer.uid, peer.gid, len(peer.groups), len(plan), int(in_memfd) | 7 * abi.OURS_0, 0)
        body += struct.pack(f"={len(peer.groups)}I", *peer.groups)
        body += b"\0" * (-(messages.HEADER.size + len(body)) % 8)
        if not in_memfd:
            self._send_order(body + plan, fds)
            return
        memfd = os.memfd_create("plan")
        os.write(memfd, plan)
        self._send_order(body, [memfd, *fds])
        os.close(memfd)

    def _send_order(self, body: bytes, fds: Sequence[int]) -> None:
        read, self._gate = os.pipe()
        self.say(PREPARE, body, [*fds, read])
        os.close(read)

    def go(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self._gate, b"g")
        self.call_off()

    def call_off(self) -> None:
        """GO will never come; after it this changes nothing."""
        gate, self._gate = self._gate, -1
        if gate >= 0:
            os.close(gate)

    def wait_for(self, name: str) -> int:
        """Until a process of the payload's has this name (before exec: the warden's); its number on the host."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            for process, one in self._payloads():
                if one == name:
                    return process
            if time.monotonic() > deadline:
                raise TimeoutError(name)
            time.sleep(0.005)

    def _payloads(self) -> Iterator[tuple[int, str]]:
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                status = (entry / "status").read_text()
                if f"\nUid:\t{self.slot_base + abi.PAYLOAD_ID}\t" in status:
                    yield int(entry.name), status.split("\n", 1)[0].removeprefix("Name:\t")

    def kill(self, cause: Cause = Cause.KILLED) -> None:
        self.say(Message.KILL, struct.pack("=II", cause, 0))

    def failure(self) -> Failed:
        """`outcome`, of what is expected not to start."""
        report, _ = self.outcome()
        assert isinstance(report, Failed), report
        return report

    def outcome(self) -> tuple[Exited | Failed, list[int]]:
        kind, _, body, fds = self.hear()
        if kind == Message.FAILED:
            return messages.parse_failed(body), fds
        assert kind == Message.EXITED
        return messages.parse_exited(body), fds

    def attempt(self, wish: Wish, peer: Peer = Peer(), stdin: bytes = b"", *, in_memfd: bool = False) -> Run | Failed:
        """The whole way, with pipes that the payload's output is read from."""
        packed = wish.packed()
        with Pipes(stdin) as pipes:
            self.order(packed, pipes.theirs, peer, in_memfd=in_memfd)
            pipes.close_theirs()
            self.go()
            report, files = self.outcome()
            if isinstance(report, Failed):
                return report
            return Run(report, *pipes.read_all(), files)

    def attempt_pinned(self, wish: Wish, peer: Peer = Peer()) -> Run | Failed:
        """`attempt` with a PIN: what is pinned is heard, and let go."""
        with Pipes(b"") as pipes:
            self.order(wish.packed(), pipes.theirs, peer)
            pipes.close_theirs()
            kind, _, body, fds = self.hear()
            for fd in fds:
                os.close(fd)
            if kind == Message.FAILED:
                return messages.parse_failed(body)
            assert kind == Message.PINNED
            self.go()
            report, files = self.outcome()
            return report if isinstance(report, Failed) else Run(report, *pipes.read_all(), files)

    def run(self, wish: Wish, peer: Peer = Peer(), stdin: bytes = b"") -> Run:
        """`attempt`, of what is expected to start."""
        result = self.attempt(wish, peer, stdin)
        assert isinstance(result, Run), result
        return result

    def refused(self, wish: Wish, peer: Peer = Peer()) -> Failed:
        """`attempt`, of what is expected not to start."""
        result = self.attempt(wish, peer)
        assert isinstance(result, Failed), (result.outcome, result.stdout, result.stderr)
        return result


class Pipes:
    """The payload's 0, 1 and 2, and threads that read what it writes."""

    def __init__(self, stdin: bytes) -> None:
        read, self._write = os.pipe()
        self._reads: list[int] = []
        self.theirs = [read]
        for _ in range(2):
            ours, theirs = os.pipe()
            self._reads.append(ours)
            self.theirs.append(theirs)
        self._output = [b"", b""]
        self._threads = [threading.Thread(target=self._drain, args=(i,)) for i in range(2)]
        for thread in self._threads:
            thread.start()
        os.write(self._write, stdin)
        os.close(self._write)

    def __enter__(self) -> Pipes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close_theirs()
        for thread in self._threads:
            thread.join()
        for fd in self._reads:
            os.close(fd)

    def close_theirs(self) -> None:
        while self.theirs:
            os.close(self.theirs.pop())

    def wait_for(self, wanted: bytes) -> None:
        """Until the payload has written this to its 1."""
        deadline = time.monotonic() + PATIENCE_S
        while wanted not in self._output[0]:
            assert time.monotonic() < deadline, self._output
            time.sleep(0.002)

    def read_all(self) -> tuple[bytes, bytes]:
        for thread in self._threads:
            thread.join()
        return self._output[0], self._output[1]

    def _drain(self, index: int) -> None:
        while True:
            ready, _, _ = select.select([self._reads[index]], [], [], PATIENCE_S)
            data = os.read(self._reads[index], 65536) if ready else b""
            if not data:
                return
            self._output[index] += data
