"""A broker for tests: starts a launcher, and speaks its protocol in blocking steps with deadlines."""

from __future__ import annotations

import array
import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from immured.host.syscalls import landlock_abi
from immured.isolation import abi, messages
from immured.isolation.abi import Message, Op, PlanKind
from immured.isolation.landlock import landlock_steps
from immured.isolation.messages import HEADER
from immured.isolation.plan import Plan, Step
from immured.isolation.sealed import sealed_memfd
from tests.patience import PATIENCE_S

SLOT_BASE = 0x60000000
W_PREPARE = 128  # enum imd_w_message


@dataclass(slots=True)
class Packet:
    """What the launcher said. The descriptors are the test's."""

    type: int
    id: int
    body: bytes
    fds: list[int] = field(default_factory=list)

    @property
    def failed(self) -> messages.Failed:
        assert self.type == Message.FAILED, f"{Message(self.type).name} instead of FAILED"
        return messages.parse_failed(self.body)

    @property
    def exited(self) -> messages.Exited:
        assert self.type == Message.EXITED, f"{Message(self.type).name} instead of EXITED"
        return messages.parse_exited(self.body)


def plan_for(*argv: str, sandbox: str = "s-1", env: Sequence[str] = (), binds: Sequence[Step] = ()) -> bytes:
    """The shortest plan with every wall."""
    return Plan(
        (
            Step(Op.DEADLINES, (240 * 10**9, 0, 1)),
            Step(Op.CGROUP, (0, 0, 0, 0, 0, 0), (b"t", sandbox.encode())),
            *binds,
            Step(Op.SEAL_ROOT),
            Step(Op.LOOPBACK),
            Step(Op.IDENTITY, (1000, 1000)),
            Step(Op.DROP_CAPABILITIES),
            Step(Op.NO_NEW_PRIVS),
            *landlock_steps(landlock_abi(), network=True),
            Step(Op.SECCOMP, (), (struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000),)),
            Step(Op.EXEC, (len(argv),), (b"/", *(one.encode() for one in argv), *(one.encode() for one in env))),
        )
    ).pack()


def sandbox_plan(sandbox: str = "s-1", tenant: str = "t") -> bytes:
    """The shortest plan of a sandbox."""
    return Plan(
        (
            Step(Op.DEADLINES, (240 * 10**9, 0, 0)),
            Step(Op.CGROUP, (0, 0, 0, 0, 0, 0), (tenant.encode(), sandbox.encode())),
            Step(Op.SEAL_ROOT),
            Step(Op.LOOPBACK),
            Step(Op.IDENTITY, (1000, 1000)),
        ),
        kind=PlanKind.SANDBOX,
    ).pack()


def exec_plan(*argv: str, sandbox: str = "s-1", name: str = "e-1") -> bytes:
    """The shortest plan of an exec with every wall."""
    return Plan(
        (
            Step(Op.DEADLINES, (240 * 10**9, 0, 1)),
            Step(Op.CGROUP, (0, 0, 0, 0, 0, 0), (sandbox.encode(), name.encode())),
            Step(Op.IDENTITY, (1000, 1000)),
            Step(Op.DROP_CAPABILITIES),
            Step(Op.NO_NEW_PRIVS),
            *landlock_steps(landlock_abi(), network=True),
            Step(Op.SECCOMP, (), (struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000),)),
            Step(Op.EXEC, (len(argv),), (b"/", *(one.encode() for one in argv))),
        ),
        kind=PlanKind.EXEC,
    ).pack()


class Broker:
    """Our end of a running launcher."""

    def __init__(self, program: Path, directory: Path, /, *, standing: object = False, **options: object) -> None:
        """`options` are the command line's, `_` for `-`; a list repeats its option. `standing`: it waits for a broker
        at its `control` (`come`)."""
        self.path = directory / "immured.sock"
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ends: socket.socket | None = None  # comes with READY
        settings: dict[str, object] = {
            "control_fd": theirs.fileno(),
            "socket": self.path,
            "slot_base": SLOT_BASE,
            "slot_count": 8,
            "pool_min": 1,
            "pool_max": 4,
        }
        if standing:
            del settings["control_fd"]
        settings |= options
        self.path = Path(str(settings["socket"]))
        arguments: list[str] = []
        for name, value in settings.items():
            for one in value if isinstance(value, list) else [value]:
                arguments += [f"--{name.replace('_', '-')}", str(one)]
        given = [settings.get(name) for name in ("lock_fd", "listen_fd")]
        self.sock = ours
        self.log = directory / "launcher.log"
        with contextlib.ExitStack() as failed, theirs, self.log.open("ab") as log:
            failed.callback(ours.close)
            self.process = subprocess.Popen(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # a process that cannot be dumped cannot be searched for leaks either
                env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
                pass_fds=[theirs.fileno(), *(one for one in given if isinstance(one, int))],
            )
            failed.pop_all()
        self.null = os.open(os.devnull, os.O_RDWR)
        self.runs = 0
        self._gates: dict[int, int] = {}
        self._early: list[Packet] = []

    def receive(self, timeout: float = PATIENCE_S) -> Packet:
        """The next packet, of a warden's first; EOFError at the launcher's end, TimeoutError when none comes."""
        ways = [self.sock] if self.ends is None else [self.ends, self.sock]
        readable = select.select(ways, [], [], timeout)[0]
        if not readable:
            raise TimeoutError(self.log.read_text())
        data, control, flags, _ = readable[0].recvmsg(abi.MAX_PACKET, socket.CMSG_SPACE(4 * 64))
        if not data:
            raise EOFError(self.log.read_text())
        assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
        fds = array.array("i")
        for level, kind, raw in control:
            assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
            fds.frombytes(raw)
        type_, length, number = HEADER.unpack_from(data)
        assert length == len(data)
        if type_ == Message.READY and self.ends is None:
            self.ends = socket.socket(fileno=fds.pop())
        return Packet(type_, number, data[HEADER.size :], list(fds))

    def wait_for(self, wanted: Callable[[Packet], bool], timeout: float = PATIENCE_S) -> Packet:
        """The first packet that fits; the others are kept for later."""
        for index, packet in enumerate(self._early):
            if wanted(packet):
                return self._early.pop(index)
        deadline = time.monotonic() + timeout
        while True:
            packet = self.receive(max(0.0, deadline - time.monotonic()))
            if wanted(packet):
                return packet
            self._early.append(packet)

    def of_run(self, run: int, timeout: float = PATIENCE_S) -> Packet:
        """What comes next about a run."""
        return self.wait_for(lambda packet: packet.id == run and packet.type > Message.CONN, timeout)

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.sock.sendmsg([data], control, socket.MSG_NOSIGNAL)

    def come(self, control: Path) -> messages.Ready:
        """As another broker, whose predecessor has left."""
        deadline = time.monotonic() + PATIENCE_S
        if self.ends is not None:
            self.ends.close()
            self.ends = None
        self.sock.close()
        self._early.clear()
        while True:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                self.sock.connect(os.fspath(control))
                return self.ready()
            except (FileNotFoundError, ConnectionRefusedError):
                self.sock.close()
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.01)

    def create(self, number: int, plan: bytes, *, connection: int = 0) -> None:
        """Ask for a sandbox, with a record that says who it is."""
        record = os.memfd_create("record")
        os.write(record, b"record of %d" % number)
        self.send(messages.encode_create(number, connection, plan, in_memfd=False), [record])
        os.close(record)

    def exec(self, number: int, sandbox: int, plan: bytes) -> None:
        """An exec that never gets GO."""
        gate, self._gates[number] = os.pipe()
        self.send(messages.encode_exec(number, sandbox, plan, in_memfd=False), [self.null] * 3 + [gate])
        os.close(gate)

    def ready(self) -> messages.Ready:
        packet = self.wait_for(lambda packet: packet.type == Message.READY)
        return messages.parse_ready(packet.body)

    def connect(self) -> tuple[socket.socket, Packet]:
        """A client, and what the launcher says of it (its descriptor is closed)."""
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.connect(os.fspath(self.path))
        packet = self.wait_for(lambda packet: packet.type == Message.CONN)
        for fd in packet.fds:
            os.close(fd)
        return client, packet

    @contextlib.contextmanager
    def connection(self) -> Iterator[int]:
        """The number of a connection that lives for the block."""
        client, packet = self.connect()
        with client:
            yield packet.id
        with contextlib.suppress(BrokenPipeError):
            self.send(messages.encode_connection_closed(packet.id))

    def prepare(
        self, connection: int, plan: bytes, *, fds: Sequence[int] | None = None, memfd: bool = False, run: int = 0
    ) -> int:
        """Send a plan; its run's number."""
        self.runs = run or self.runs + 1
        given = list([self.null] * 3 if fds is None else fds)
        gate, self._gates[self.runs] = os.pipe()
        image = sealed_memfd("plan", plan) if memfd else -1
        try:
            self.send(
                messages.encode_prepare(self.runs, connection, plan, in_memfd=memfd),
                ([image] if memfd else []) + [*given, gate],
            )
        finally:
            os.close(gate)
            if memfd:
                os.close(image)
        return self.runs

    def go(self, run: int) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self._gates[run], b"g")
        self.call_off(run)

    def call_off(self, run: int) -> None:
        """GO will never come; after it this changes nothing."""
        os.close(self._gates.pop(run))

    def kill(self, run: int) -> None:
        self.send(messages.encode_kill(run, abi.Cause.KILLED))

    def run(self, connection: int, plan: bytes) -> Packet:
        """From prepare to the end."""
        number = self.prepare(connection, plan)
        self.go(number)
        return self.of_run(number)

    def kin(self, name: str) -> list[int]:
        """Pids of the launcher's descendants with this name."""
        return [pid for pid in descendants(self.process.pid) if name_of(pid) == name]

    @property
    def parker(self) -> int:
        """Its pid: the launcher has no other child."""
        pid = self.process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())

    def end(self) -> int:
        """Close our socket, as a broker that died; the launcher's exit status."""
        self.sock.close()
        self._shut()
        return self.process.wait(PATIENCE_S)

    def _shut(self) -> None:
        for gate in self._gates.values():
            os.close(gate)
        self._gates.clear()

    def close(self) -> None:
        """Whatever state it is in."""
        self.sock.close()
        self.process.terminate()  # it keeps nothing for another
        if self.ends is not None:
            self.ends.close()
        self._shut()
        os.close(self.null)
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        try:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        except OSError:
            continue
        waiting += [int(child) for child in children]
        found += [int(child) for child in children]
    return found


def gone(pid: int) -> bool:
    """No such process, or only its exit status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def eventually(condition: Callable[[], bool], timeout: float = PATIENCE_S) -> bool:
    """Whether it comes true in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def murder(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
