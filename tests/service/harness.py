"""The service without a launcher: every part is real but the last, which runs commands as they are.

`FakeLauncher` has the interface of `isolation.launcher.Launcher`. It takes the command out of the packed plan and
starts it as an ordinary process, or, told so, fails, hangs or dies as the real one may.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import hashlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from immured.host.facts import HostFacts
from immured.identity.authority import Authority
from immured.identity.policy.schema import Policy
from immured.identity.replay import ReplayRecord
from immured.isolation.abi import Cause, Clerk, Measured, Op, Stage
from immured.isolation.launcher import Connection, LauncherLostError, Outcome
from immured.isolation.launcher_runs import Creation, KeptFds, KeptSandbox, Pinned
from immured.isolation.messages import Counts, Exited, Failed, Measures, Peer, PinnedFile
from immured.ledger import Ledger
from immured.service.commands import load_commands
from immured.service.context import Service
from immured.service.daemon_keys import DaemonKeys
from immured.service.dispatch import Dispatcher
from immured.service.limits import Limits
from immured.service.manifest_register import Register
from immured.service.policies import shipped_policy
from immured.service.registry import Registry
from immured.service.server import Server
from immured.service.state import State, init_state
from immured.wire.envelope import decode_envelope, seal
from immured.wire.frames import encode_frame
from immured.wire.keys import PrivateKey
from immured.wire.messages import COMMAND, DATA, HELLO, REPLY, Command, Data, Reply, data_body, parse_data, parse_reply
from tests.descriptors import descriptors
from tests.entries import entries_in
from tests.patience import PATIENCE_S

SCENARIO_S = 240.0
"""All of one: more than any wait in it, less than a test may take."""

FACTS = HostFacts(
    controllers=frozenset({"cpu", "memory", "pids", "io", "kill"}),
    slot_base=0x70000000,
    slot_count=16,
    swap=True,
    cgroup="/fake",
    cpus=2,
)


def exec_step(plan: bytes) -> tuple[list[bytes], list[bytes]]:
    """argv and environment of a packed plan."""
    _, _, steps, _ = struct.unpack_from("=IIII", plan)
    position = 16
    for _ in range(steps):
        op, numbers, strings = struct.unpack_from("=IHH", plan, position)
        position += 8
        values = struct.unpack_from(f"={numbers}Q", plan, position)
        position += 8 * numbers
        found = []
        for _ in range(strings):
            (length,) = struct.unpack_from("=I", plan, position)
            found.append(plan[position + 4 : position + 4 + length])
            position += (4 + length) // 8 * 8 + 8
        if op == Op.EXEC:
            return found[1 : 1 + values[0]], found[1 + values[0] :]
    raise AssertionError("no EXEC")


@dataclass
class FakeRun:
    plan: bytes
    fds: list[int]
    ready: bool
    outcome: asyncio.Future[Outcome]
    process: subprocess.Popen[bytes] | None = None
    killed: Cause | None = None
    began: float = 0.0


@dataclass
class FakeCell:
    created: asyncio.Future[bool]
    ended: asyncio.Future[Outcome]
    record: int
    execs: set[int] = field(default_factory=set)


class FakeLauncher:
    """`hold_prepare` keeps cells from getting ready; `fail` answers PREPARE; `gone` is what was let go. While `freezes`
    is clear no FREEZE is answered; `fail_freeze` is the errno that answers it.
    """

    facts = FACTS

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.runs: dict[int, FakeRun] = {}
        self.gone: list[int] = []
        self.kills: list[tuple[int, Cause]] = []
        self.forgotten: list[int] = []
        self.away: list[tuple[int, int]] = []
        self.fail: Failed | None = None
        self.hold_prepare = False
        self.lost = False
        self.collected: Mapping[int, int] = {}
        self.cells: dict[int, FakeCell] = {}
        self.numbers = 1000
        self.sizes: list[tuple[int, int, int]] = []
        self.closed_stdins: list[int] = []
        self.frozen: list[tuple[int, bool]] = []
        self.freezes = asyncio.Event()
        self.freezes.set()
        self.fail_freeze = 0
        self.extended: list[tuple[int, int]] = []
        self.asked: list[tuple[int, Clerk, int, socket.socket]] = []

    def prepare(
        self,
        run: int,
        connection: int,
        plan: bytes,
        fds: Sequence[int],
        *,
        ours: Sequence[int] = (),
        log: int | None = None,
    ) -> Awaitable[Outcome]:
        if self.lost:
            raise LauncherLostError("gone")
        record = FakeRun(plan, [os.dup(fd) for fd in fds], not self.hold_prepare, self.loop.create_future())
        self.runs[run] = record
        if self.fail is not None:
            self._close(record)
            del self.runs[run]
            record.outcome.set_result(Outcome(self.fail))
        return record.outcome

    def pinned(self, run: int) -> Awaitable[Pinned | None]:
        told: asyncio.Future[Pinned | None] = self.loop.create_future()
        record = self.runs.get(run)
        if record is None:
            told.set_result(None)
            return told
        argv, _ = exec_step(record.plan)
        found = shutil.which(argv[0]) or argv[0]
        content = Path(os.fsdecode(found)).read_bytes()
        digest = hashlib.sha256(content).digest()
        told.set_result(Pinned((PinnedFile(os.fsencode(found), b"", digest, len(content)),)))
        return told

    def go(self, run: int) -> None:
        record = self.runs.get(run)
        if record is None or not record.ready:
            return  # it failed before, or will go once it is prepared, which no scene waits for
        self.gone.append(run)
        argv, env = exec_step(record.plan)
        stdin, stdout, stderr = record.fds
        record.began = time.monotonic()
        record.process = subprocess.Popen(
            argv, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True,
            env=dict(one.split(b"=", 1) for one in env),
        )  # fmt: skip
        self._close(record)
        handle = os.pidfd_open(record.process.pid)
        self.loop.add_reader(handle, self._exited, run, handle)

    def kill(self, run: int, cause: Cause = Cause.KILLED) -> None:
        if run in self.cells:
            self.kills.append((run, cause))
            self.end_cell(run, cause)
            return
        record = self.runs.get(run)
        if record is None:
            return
        self.kills.append((run, cause))
        record.killed = record.killed or cause
        if record.process is not None:
            os.killpg(record.process.pid, signal.SIGKILL)
        else:
            self._close(record)
            del self.runs[run]
            record.outcome.set_result(Outcome(Failed(Stage.KILLED, None, 0, "")))

    def counts(self) -> Awaitable[Counts]:
        counted: asyncio.Future[Counts] = self.loop.create_future()
        if self.lost:
            raise LauncherLostError("gone")
        counted.set_result(Counts("00" * 16, 0, len(self.gone), 0))
        return counted

    # -- sandboxes: a cell is nothing here, and an exec an ordinary process

    kept: tuple[KeptSandbox, ...] = ()
    told: frozenset[int] = frozenset()

    def adopted_all(self) -> None:
        pass

    def new_number(self) -> int:
        self.numbers += 1
        return self.numbers

    def create(self, number: int, connection: int, plan: bytes, record_fd: int) -> Creation:
        if self.lost:
            raise LauncherLostError("gone")
        cell = FakeCell(self.loop.create_future(), self.loop.create_future(), os.dup(record_fd))
        self.cells[number] = cell
        if self.fail is not None:
            self._cell_over(number, self.fail)
        elif not self.hold_prepare:
            cell.created.set_result(True)
        return Creation(cell.created, cell.ended)

    def adopt(self, number: int) -> Awaitable[Outcome]:
        return self.cells[number].ended

    def keep(self, number: int, record: int, *, frozen: bool) -> None:
        """A sandbox that lived on without a broker; `record` is not taken over."""
        self.cells[number] = FakeCell(self.loop.create_future(), self.loop.create_future(), os.dup(record))
        self.cells[number].created.set_result(True)
        self.kept = (*self.kept, KeptSandbox(number, os.dup(record), time.monotonic_ns() + 60 * 10**9, frozen, ()))

    def exec(
        self,
        number: int,
        sandbox: int,
        plan: bytes,
        fds: Sequence[int],
        *,
        ours: Sequence[int] = (),
        log: int | None = None,
        kept: KeptFds | None = None,
    ) -> Awaitable[Outcome]:
        self.cells[sandbox].execs.add(number)
        return self.prepare(number, 0, plan, fds, ours=ours, log=log)

    def terminal(self, number: int) -> Awaitable[int]:
        raise LookupError(number)

    def signal(self, number: int, signo: int, everybody: bool = False) -> None:
        process = self.runs[number].process
        if process is not None:
            process.send_signal(signo)

    def resize(self, number: int, rows: int, columns: int) -> None:
        self.sizes.append((number, rows, columns))

    def close_stdin(self, number: int) -> None:
        self.closed_stdins.append(number)

    async def freeze(self, sandbox: int, on: bool) -> None:
        if sandbox not in self.cells:
            raise LookupError(sandbox)
        self.frozen.append((sandbox, on))
        await self.freezes.wait()
        if self.fail_freeze:
            raise OSError(self.fail_freeze, os.strerror(self.fail_freeze))

    def extend(self, sandbox: int, ns: int) -> None:
        self.extended.append((sandbox, ns))

    async def measure(self, sandbox: int) -> Measures:
        if sandbox not in self.cells:
            raise LookupError(sandbox)
        so_far = Exited(Cause.EXITED, Measured.CPU, 0, 0, cpu_user_ns=10**6)
        return Measures(so_far, 1 << 20, 3, len(self.cells[sandbox].execs & set(self.runs)), 4096, 1)

    def end_cell(self, number: int, cause: Cause) -> None:
        """It ends of itself."""
        self._cell_over(number, Exited(cause, Measured.CPU, os.CLD_KILLED, 9, cpu_user_ns=10**6))

    def _cell_over(self, number: int, report: Exited | Failed) -> None:
        cell = self.cells.pop(number)
        os.close(cell.record)
        for one in cell.execs & set(self.runs):
            self.kill(one)
        if not cell.created.done():
            cell.created.set_result(False)
        cell.ended.set_result(Outcome(report))

    def ask(self, sandbox: int, clerk: Clerk, connection: int) -> socket.socket:
        """`asked` has the other end, for the scene to serve."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.asked.append((sandbox, clerk, connection, theirs))
        return ours

    def connection_closed(self, number: int) -> None:
        self.forgotten.append(number)

    def turn_away(self, uid: int, ms: int) -> None:
        self.away.append((uid, ms))

    def die(self) -> None:
        """What `Launcher` does when its process is gone."""
        self.lost = True
        for record in self.runs.values():
            if record.process is not None:
                os.killpg(record.process.pid, signal.SIGKILL)
                record.process.wait()
            else:
                self._close(record)
            if not record.outcome.done():
                record.outcome.set_exception(LauncherLostError("the launcher ended by signal 9"))
                record.outcome.exception()
        self.runs.clear()
        for cell in self.cells.values():
            os.close(cell.record)
            for future in (cell.created, cell.ended):
                if not future.done():
                    future.set_exception(LauncherLostError("the launcher ended by signal 9"))
                    future.exception()
        self.cells.clear()

    def _exited(self, run: int, handle: int) -> None:
        self.loop.remove_reader(handle)
        os.close(handle)
        record = self.runs.pop(run, None)
        if record is None:
            return
        assert record.process is not None
        code = record.process.wait()
        cause = record.killed or (Cause.EXITED if code >= 0 else Cause.SIGNALED)
        wall = int((time.monotonic() - record.began) * 1e9)
        kind = os.CLD_EXITED if code >= 0 else os.CLD_KILLED
        record.outcome.set_result(
            Outcome(Exited(cause, Measured.CPU, kind, abs(code), wall_ns=wall, cpu_user_ns=10**6), self.collected)
        )

    @staticmethod
    def _close(record: FakeRun) -> None:
        for fd in record.fds:
            os.close(fd)
        record.fds.clear()


class Client:
    """The other end of a connection: sends commands, reads frames. Blocking calls stand in threads."""

    def __init__(self, harness: Harness, sock: socket.socket, key: PrivateKey) -> None:
        self.harness = harness
        self.sock = sock
        self.key = key
        self.data: list[Data] = []
        self.hello: Any = None
        sock.settimeout(PATIENCE_S)

    def envelope(self, cmd: str, args: Mapping[str, object], **changes: Any) -> bytes:
        """A signed command's frame body."""
        now = self.harness.service.clock()
        fields: dict[str, Any] = {
            "aud": self.harness.state.key.id, "nonce": os.urandom(16), "iat": now, "exp": now + 60_000, **changes
        }  # fmt: skip
        return seal(COMMAND, Command(cmd=cmd, args=args, **fields).to_payload(), [self.key])

    async def send(self, body: bytes, fds: Sequence[int] = ()) -> None:
        """One frame."""
        await self.send_raw(encode_frame(body), fds)

    async def send_raw(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Any bytes, with any descriptors."""
        await asyncio.to_thread(self._send, data, fds)

    def _send(self, data: bytes, fds: Sequence[int]) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = self.sock.sendmsg([data], ancillary)
        if sent < len(data):  # even an empty send fails where the daemon has closed by now
            self.sock.sendall(data[sent:])

    async def feed(self, re: bytes, data: bytes) -> None:
        """A data frame of stdin."""
        await self.send(data_body(re, "stdin", data))

    async def read(self) -> tuple[str, Any] | None:
        """The next frame: its type and its payload, parsed; None at the end of the stream."""
        header = await asyncio.to_thread(self._exactly, 4)
        if header is None:
            return None
        body = await asyncio.to_thread(self._exactly, int.from_bytes(header, "big"))
        assert body is not None
        envelope = decode_envelope(body)
        if envelope.type == DATA:
            return envelope.type, parse_data(envelope.payload)
        return envelope.type, parse_reply(envelope.payload) if envelope.type == REPLY else envelope.payload

    async def reply(self) -> Reply | None:
        """The next reply; data frames before it are kept in `data`."""
        while (frame := await self.read()) is not None:
            kind, payload = frame
            if kind == REPLY:
                assert isinstance(payload, Reply)
                return payload
            if kind == DATA:
                self.data.append(payload)
            else:
                assert kind == HELLO
        return None

    async def ask(self, cmd: str, args: Mapping[str, object], *, fds: Sequence[int] = (), **changes: Any) -> Reply:
        """One command, and its reply."""
        await self.send(self.envelope(cmd, args, **changes), fds)
        reply = await self.reply()
        assert reply is not None, "the connection was closed"
        return reply

    async def run(self, *argv: str, fds: Sequence[int] = (), **args: object) -> Reply:
        """The command `run`."""
        return await self.ask("run", {"argv": list(argv), **args}, fds=fds)

    def close(self) -> None:
        """Vanish."""
        self.sock.close()

    def _exactly(self, size: int) -> bytes | None:
        data = b""
        while len(data) < size:
            try:
                part = self.sock.recv(size - len(data))
            except (ConnectionResetError, OSError):
                return None
            if not part:
                return None
            data += part
        return data


@dataclass
class Harness:
    """A service over a state directory, in this very event loop."""

    state: State
    limits: Limits = field(default_factory=Limits)
    max_runs: int = 16
    policy: Policy | None = None
    register: Register = field(default_factory=Register)
    ledger: Ledger = field(init=False)
    launcher: FakeLauncher = field(init=False)
    service: Service = field(init=False)
    server: Server = field(init=False)
    dispatcher: Dispatcher = field(init=False)
    numbers: int = 0
    clients: list[Client] = field(default_factory=list)

    async def __aenter__(self) -> Harness:
        state = self.state
        self.ledger = Ledger.open(state.paths.root)
        self.launcher = FakeLauncher()
        self.service = Service(
            state=state,
            authority=Authority(state.keyring, self.policy or shipped_policy()),
            ledger=self.ledger,
            launcher=self.launcher,
            registry=Registry(self.max_runs, self.launcher.kill),
            replay=ReplayRecord(),
            boot=os.urandom(16),
            audiences=frozenset({state.key.id}),
            keys=DaemonKeys(state.key),
            register=self.register,
        )
        self.dispatcher = Dispatcher(self.service, load_commands(), in_flight=self.limits.requests_per_connection)
        self.server = Server(
            keys=self.service.keys,
            boot=self.service.boot,
            limits=self.limits,
            on_frame=self.dispatcher.frame,
            misbehaved=self.service.misbehaviour.add,
            forget=self.launcher.connection_closed,
            turn_away=self.launcher.turn_away,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self.clients:
            with contextlib.suppress(OSError):
                client.sock.shutdown(socket.SHUT_RDWR)  # a thread that still reads from it reads its end
            client.close()
        self.server.close_all()
        self.launcher.die()
        async with asyncio.timeout(PATIENCE_S):
            await self.dispatcher.finish()
        self.ledger.close()

    def connect(self, *, uid: int = 0, key: PrivateKey | None = None) -> Client:
        """A connection as the launcher would hand it over."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        self.numbers += 1
        self.server.accept(Connection(self.numbers, Peer(uid, uid, os.getpid(), (uid,)), ours))
        client = Client(self, theirs, key or self.admin)
        self.clients.append(client)
        return client

    @property
    def admin(self) -> PrivateKey:
        """The key that may do everything."""
        return PrivateKey.from_pem(self.state.paths.admin_key.read_bytes())

    def entries(self) -> list[dict[str, Any]]:
        """What the ledger's file holds now."""
        return entries_in(self.state.paths.root)

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        """The entries of one type."""
        return [entry for entry in self.entries() if entry["type"] == kind]


def serving(
    directory: Path,
    scenario: Callable[[Harness], Awaitable[None]],
    *,
    limits: Limits | None = None,
    max_runs: int = 16,
    policy: Policy | None = None,
) -> None:
    """Run a scenario against a fresh service. `policy`: another than the shipped one."""
    state = init_state(directory / "state")

    async def whole() -> None:
        async with asyncio.timeout(SCENARIO_S), Harness(state, limits or Limits(), max_runs, policy) as harness:
            await scenario(harness)

    asyncio.run(whole())


async def until(condition: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.005)


async def closed_but(before: set[str]) -> None:
    """Until no more is open than `before`: what closes slowly is closed by a thread, which no answer waits for.

    But for one eventfd: a loop opens it once, when it first has to wait for the ledger's disk.
    """

    def more() -> set[str]:
        found = descriptors() - before
        bells = sorted(one for one in found if one.endswith("anon_inode:[eventfd]"))
        return found - set(bells[:1])

    with contextlib.suppress(TimeoutError):
        await until(lambda: not more())
    assert more() == set()
