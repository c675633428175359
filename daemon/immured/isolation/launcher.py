"""The launcher, seen from the broker: an asyncio client of the SEQPACKET protocol in native/launcher/protocol.h.

The launcher is a root program of its own, started here once, from a sealed copy of its executable. It hands over each
connection that it accepts, prepares runs from plans, and reports how they ended. Sending never blocks: what the socket
does not take waits in order. Every descriptor is close-on-exec and closed on every path; those handed to a caller
(`Connection.sock`, `Outcome.files`) are the caller's.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import os
import signal
import socket
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from immured.errors import ConfigurationError, ImmuredError
from immured.host.facts import HostFacts
from immured.isolation import abi, messages
from immured.isolation.abi import Cause, Controller, Message, Stage
from immured.isolation.messages import Exited, Failed, Peer, ProtocolError
from immured.isolation.sealed import sealed_memfd

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from pathlib import Path

__all__ = ["Connection", "Launcher", "LauncherLostError", "Outcome"]

_INLINE_PLAN: Final = 60 * 1024  # what a packet holds beside its own header
_RECEIVE_BURST: Final = 64  # packets per wake-up, so that a busy launcher does not starve the connections
_MAX_DESCRIPTORS: Final = 253  # SCM_MAX_FD
_FULL: Final = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ETOOMANYREFS})
_RETRY_S: Final = 0.005  # for a full socket that never becomes writable because nothing of ours is queued in it
_LAST_WORDS_S: Final = 1.0  # between the launcher's end of file and its exit status


class LauncherLostError(ImmuredError):
    """The launcher is gone; whatever it ran was killed by the kernel or by its own wardens."""

    def __init__(self, reason: str) -> None:
        super().__init__("internal", reason, "restart the daemon; its log names what ended the launcher")


@dataclass(frozen=True, slots=True)
class Connection:
    """A client, accepted by the launcher. `number` names it in `Launcher.prepare`; the receiver owns `sock`."""

    number: int
    peer: Peer
    sock: socket.socket


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: `report` is the launcher's measurement, or why the run never began.

    `files[i]` is a descriptor of the plan's i-th COLLECT; absent where there is no such regular file. The receiver
    closes them: by hand, by `close()`, or with the outcome as a context manager.
    """

    report: Exited | Failed
    files: Mapping[int, int] = field(default_factory=dict)

    def close(self) -> None:
        """Close every collected descriptor. Call it once."""
        _close_all(self.files.values())

    def __enter__(self) -> Outcome:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(slots=True)
class _Run:
    outcome: asyncio.Future[Outcome]
    gate: int | None  # the writing end of the pipe of GO; None once it went, or never will
    gone: bool = False  # GO was given

    def shut(self) -> None:
        gate, self.gate = self.gate, None
        if gate is not None:
            os.close(gate)


@dataclass(slots=True)
class _Packet:
    data: bytes
    fds: list[int] = field(default_factory=list)  # duplicates, ours to close


class Launcher:
    """A running launcher. Made by `spawn`; used from one event loop's thread."""

    def __init__(
        self,
        sock: socket.socket,
        outcomes: socket.socket,
        pid: int,
        *,
        on_connection: Callable[[Connection], None],
        on_lost: Callable[[str], None],
    ) -> None:
        """`sock` and `outcomes` are our ends of the two pairs, non-blocking, and become ours; `pid` is our child's."""
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._outcomes = outcomes
        self._on_connection = on_connection
        self._on_lost = on_lost
        self._runs: dict[int, _Run] = {}
        self._queue: deque[_Packet] = deque()
        self._ready: asyncio.Future[HostFacts] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._facts: HostFacts | None = None
        self._lost: str | None = None
        self._closing = False
        self._pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._loop.add_reader(self._sock, self._readable)
        self._loop.add_reader(self._outcomes, self._ends_readable)
        self._loop.add_reader(self._pidfd, self._exited)

    @classmethod
    async def spawn(
        cls,
        executable: Path,
        *,
        socket_path: Path,
        slot_base: int,
        slot_count: int,
        cgroup: Path | None,
        lock_fd: int,
        pool_min: int,
        pool_max: int,
        on_connection: Callable[[Connection], None],
        on_lost: Callable[[str], None],
        grant_read: Sequence[Path] = (),
        grant_write: Sequence[Path] = (),
        open_timeout_ms: int | None = None,
        max_connections: int | None = None,
        ready_timeout: float = 20.0,
    ) -> Launcher:
        """Start the launcher and wait for READY; `facts` is known then.

        `lock_fd` (a locked file) stays open in the launcher, so that the lock outlives a broker that died first.
        `on_lost(reason)` is called once if the launcher ends without `close`. Raises ConfigurationError
        ("launcher_failed") where it does not start or does not answer within `ready_timeout` seconds.
        """
        arguments = [
            *("--socket", os.fspath(socket_path)),
            *("--slot-base", str(slot_base)),
            *("--slot-count", str(slot_count)),
            *("--lock-fd", str(lock_fd)),
            *("--pool-min", str(pool_min)),
            *("--pool-max", str(pool_max)),
        ]
        if cgroup is not None:
            arguments += ["--cgroup", os.fspath(cgroup)]
        if open_timeout_ms is not None:
            arguments += ["--open-timeout-ms", str(open_timeout_ms)]
        if max_connections is not None:
            arguments += ["--max-connections", str(max_connections)]
        for path in grant_read:
            arguments += ["--grant-read", os.fspath(path)]
        for path in grant_write:
            arguments += ["--grant-write", os.fspath(path)]

        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        ends, wardens = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        with theirs, wardens:
            given = ["--control-fd", str(theirs.fileno()), "--outcome-fd", str(wardens.fileno())]
            try:
                pid = _start(executable, [*given, *arguments], theirs.fileno(), wardens.fileno(), lock_fd)
            except OSError as error:
                ours.close()
                ends.close()
                raise ConfigurationError(
                    "launcher_failed",
                    f"{executable}: {error.strerror or error}",
                    "build it with `make build`, and run the daemon as root",
                ) from error
        ours.setblocking(False)
        ends.setblocking(False)
        launcher = cls(ours, ends, pid, on_connection=on_connection, on_lost=on_lost)
        try:
            async with asyncio.timeout(ready_timeout):
                await launcher._ready
        except (LauncherLostError, TimeoutError) as error:
            await launcher.close(kill=True)
            reason = error.message if isinstance(error, LauncherLostError) else f"no answer within {ready_timeout:g} s"
            raise ConfigurationError(
                "launcher_failed", f"the launcher did not start: {reason}", "see its message above, or `immure doctor`"
            ) from error
        except BaseException:
            await launcher.close(kill=True)
            raise
        return launcher

    @property
    def facts(self) -> HostFacts:
        """What READY said. Raises RuntimeError before it."""
        if self._facts is None:
            raise RuntimeError("the launcher is not ready")
        return self._facts

    @property
    def pid(self) -> int:
        """The launcher's process id, for `status` and diagnostics."""
        return self._pid

    @property
    def runs(self) -> frozenset[int]:
        """The runs that have not ended."""
        return frozenset(self._runs)

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
        """Send a run's plan with its descriptors 0, 1 and 2, which are only borrowed: close them once this returns.
        `ours` names those that are pipes of this process's own: the payload may open them anew. `log`, borrowed too, is
        where a plan that learns writes what the run asked for.

        A cell is prepared and waits for `go`. The answer is how the run ends, once it is torn down (Failed at the
        stage KILLED where it was called off); cancelled, its descriptors are closed. Raises LauncherLostError here or
        from the answer; OSError (EMFILE) and ValueError (a number in use) here.
        """
        if self._lost is not None:
            raise LauncherLostError(self._lost)
        if run in self._runs:
            raise ValueError(f"run {run} is not over")
        if len(fds) != 3:
            raise ValueError("a run takes exactly the descriptors 0, 1 and 2")
        in_memfd = len(plan) > _INLINE_PLAN
        data = messages.encode_prepare(run, connection, plan, in_memfd=in_memfd, ours=ours, logged=log is not None)
        logs = () if log is None else (log,)
        theirs, gate = os.pipe2(os.O_CLOEXEC)
        record = self._runs[run] = _Run(self._loop.create_future(), gate)
        try:
            if in_memfd:
                memfd = sealed_memfd("immured-plan", plan)
                try:
                    self._send(data, [memfd, *fds, theirs, *logs])
                finally:
                    os.close(memfd)
            else:
                self._send(data, [*fds, theirs, *logs])
        except BaseException:
            self._runs.pop(run, None)
            record.shut()
            raise
        finally:
            os.close(theirs)
        return record.outcome

    def go(self, run: int) -> None:
        """The intent is durable: let it execute, at once or as soon as it is prepared. Nothing happens for a run that
        is over. Call it once."""
        record = self._runs.get(run)
        if record is not None and record.gate is not None:
            record.gone = True
            with contextlib.suppress(BrokenPipeError):  # it failed meanwhile: its end is on the way
                os.write(record.gate, b"g")
            record.shut()

    def kill(self, run: int, cause: Cause = Cause.KILLED) -> None:
        """End a run with everything in it; `cause` is what its outcome will name. Nothing happens once it is over."""
        if run in self._runs:
            self._send(messages.encode_kill(run, cause))

    def connection_closed(self, number: int) -> None:
        """Tell the launcher that a connection is closed, so that it forgets its peer."""
        if self._lost is None:
            self._send(messages.encode_connection_closed(number))

    def stop(self) -> None:
        """Accept nobody any more; live runs go on."""
        if self._lost is None:
            self._send(messages.encode_stop())

    async def close(self, *, kill: bool = False, grace: float = 10.0) -> None:
        """Close the socket, which ends the launcher and everything it runs, and reap it.

        After `grace` seconds, or at once with `kill`, it is killed. `on_lost` is not called; what still awaits an
        answer gets LauncherLostError.
        """
        self._closing = True
        self._abandon("the daemon is stopping")
        if kill or not await self._ends_within(grace):
            self._kill()
            await self._ends_within(grace)

    async def _ends_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True

    # -- sending

    def _send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        if self._lost is not None:
            raise LauncherLostError(self._lost)
        if not self._queue and self._try_send(data, fds):
            return
        held: list[int] = []
        try:
            for fd in fds:
                held.append(os.dup(fd))  # noqa: PERF401 - what was duplicated before a failure must be closed
        except OSError:
            _close_all(held)
            raise
        self._queue.append(_Packet(data, held))
        if len(self._queue) == 1:
            self._await_room()

    def _try_send(self, data: bytes, fds: Sequence[int]) -> bool:
        """False where the socket is full for now. A launcher that is gone counts as sent: its end is told elsewhere."""
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self._sock.sendmsg([data], control, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        except OSError as error:
            if error.errno in _FULL:
                return False
            if error.errno not in (errno.EPIPE, errno.ECONNRESET):
                raise
        return True

    def _await_room(self) -> None:
        self._loop.add_writer(self._sock, self._writable)

    def _writable(self) -> None:
        while self._queue:
            packet = self._queue[0]
            try:
                if not self._try_send(packet.data, packet.fds):
                    # writable and yet full is a shortage elsewhere (memory, descriptors in flight): do not spin on it
                    self._loop.remove_writer(self._sock)
                    self._loop.call_later(_RETRY_S, self._retry)
                    return
            except OSError as error:
                self._give_up(f"cannot send to the launcher: {error.strerror or error}")
                return
            self._queue.popleft()
            _close_all(packet.fds)
        self._loop.remove_writer(self._sock)

    def _retry(self) -> None:
        if self._lost is None and self._queue:
            self._await_room()

    # -- receiving

    def _readable(self) -> bool:
        """Take what has come, up to a burst. Whether more may be waiting."""
        return self._take(self._sock, self._packet, self._end_of_file, _RECEIVE_BURST)

    def _ends_readable(self) -> bool:
        """The same of what wardens say, one at a time: most often there is one, and to be told so takes a while."""
        return self._take(self._outcomes, self._end, self._nobody_left, 1)

    def _take(
        self,
        sock: socket.socket,
        take: Callable[[bytes, int, list[int]], None],
        ended: Callable[[], None],
        burst: int,
    ) -> bool:
        for _ in range(burst):
            if self._lost is not None:
                return False
            try:
                data, control, flags, _ = sock.recvmsg(
                    abi.MAX_PACKET,
                    socket.CMSG_SPACE(4 * _MAX_DESCRIPTORS),
                    socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC,
                )
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:
                self._give_up(f"cannot read from the launcher: {error.strerror or error}")
                return False
            fds = _descriptors(control)
            if not data:
                _close_all(fds)
                ended()
                return False
            try:
                take(data, flags, fds)
            except ProtocolError as error:
                self._give_up(str(error))
                return False
            finally:
                _close_all(fds)
        return True

    def _packet(self, data: bytes, flags: int, fds: list[int]) -> None:
        """Take one packet. Whoever keeps a descriptor removes it from `fds`; the rest is closed by the caller."""
        kind, number, body = _opened(data, flags)
        if kind == Message.CONN:
            self._connection(number, messages.parse_peer(body), fds)
        elif kind == Message.FAILED:
            failed = messages.parse_failed(body)
            while failed.stage is Stage.LOST and self._ends_readable():
                pass  # what a warden said before it died stands, and may not have been read
            run = self._runs.get(number)
            lost = failed.stage is Stage.LOST and run is not None and run.gone
            self._run_over(number, messages.LOST if lost else failed, {})
        elif kind == Message.READY:
            self._set_ready(messages.parse_ready(body))
        else:
            raise ProtocolError(f"the launcher sent a message of the unknown type {kind}")

    def _end(self, data: bytes, flags: int, fds: list[int]) -> None:
        """Take a warden's word on how its run ended; descriptors as above."""
        kind, number, body = _opened(data, flags)
        if kind == Message.EXITED:
            exited = messages.parse_exited(body)
            run = self._runs.get(number)
            if run is not None and not run.gone:
                raise ProtocolError(f"a warden sent EXITED for run {number}, which was not let go")
            self._run_over(number, exited, _collected(exited.collected, fds))
        elif kind == Message.FAILED:
            self._run_over(number, messages.parse_failed(body), {})
        else:
            raise ProtocolError(f"a warden sent a message of the unknown type {kind}")

    def _connection(self, number: int, peer: Peer, fds: list[int]) -> None:
        if not fds:  # this process is out of descriptors; the client sees its connection closed
            self.connection_closed(number)
            return
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fds.pop(0))
        sock.setblocking(False)
        if self._closing:
            sock.close()
            return
        self._on_connection(Connection(number, peer, sock))

    def _run_over(self, number: int, report: Exited | Failed, files: Mapping[int, int]) -> None:
        """Of a run that is over already this is the launcher's word after the warden's, and is dropped."""
        outcome = Outcome(report, files)
        run = self._runs.pop(number, None)
        if run is not None:
            run.shut()
        if run is None or not _resolve(run.outcome, outcome):
            outcome.close()

    def _set_ready(self, ready: messages.Ready) -> None:
        names = {Controller.CPU: "cpu", Controller.MEMORY: "memory", Controller.PIDS: "pids", Controller.IO: "io"}
        names |= {Controller.CPUSET: "cpuset", Controller.KILL: "kill"}
        self._facts = HostFacts(
            controllers=frozenset(name for flag, name in names.items() if ready.controllers & flag),
            landlock_abi=ready.landlock_abi,
            slot_base=ready.slot_base,
            slot_count=ready.slot_count,
            swap=ready.swap,
            cgroup=ready.cgroup,
        )
        _resolve(self._ready, self._facts)

    # -- the end

    def _nobody_left(self) -> None:
        """Neither launcher nor warden holds the other end any more."""
        self._loop.remove_reader(self._outcomes)

    def _end_of_file(self) -> None:
        """Hear no more; its exit status, which says why, follows in a moment or not at all."""
        self._loop.remove_reader(self._sock)
        self._loop.call_later(_LAST_WORDS_S, self._give_up, "the launcher closed its socket")

    def _exited(self) -> None:
        """The launcher's process ended: reap it, hear what it said last, and say how it ended."""
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        status = "of an unknown cause"
        with contextlib.suppress(ChildProcessError):
            _, wait_status = os.waitpid(self._pid, 0)
            code = os.waitstatus_to_exitcode(wait_status)
            status = f"with status {code}" if code >= 0 else f"by signal {-code}"
        self._ended.set()
        while self._lost is None and self._ends_readable():
            pass
        while self._lost is None and self._readable():
            pass
        self._give_up(f"the launcher ended {status}")

    def _give_up(self, reason: str) -> None:
        if self._lost is not None:
            return
        self._abandon(reason)
        if not self._closing and self._facts is not None:
            self._on_lost(reason)

    def _abandon(self, reason: str) -> None:
        """Close our ends, release what is queued, and tell everyone who waits. Twice is once."""
        if self._lost is not None:
            return
        self._lost = reason
        self._loop.remove_reader(self._sock)
        self._loop.remove_reader(self._outcomes)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self._outcomes.close()
        for packet in self._queue:
            _close_all(packet.fds)
        self._queue.clear()
        lost = LauncherLostError(reason)
        if not self._ready.done():
            self._ready.set_exception(lost)
        for run in self._runs.values():
            run.shut()
            if not run.outcome.done():
                run.outcome.set_exception(lost)
                run.outcome.exception()  # not everybody waits
        self._runs.clear()

    def _kill(self) -> None:
        if not self._ended.is_set():
            # a broker that gave up its rights cannot kill; the end of the socket still ends the launcher
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)


def _start(executable: Path, arguments: list[str], *inherited: int) -> int:
    """Start a sealed copy of `executable` with these descriptors beside 0 (/dev/null), 1 and 2; its process id."""
    image = sealed_memfd("immured-launcher", executable.read_bytes(), executable=True)
    try:
        return os.posix_spawn(
            f"/proc/self/fd/{image}",
            ["immured-launcher", *arguments],
            {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                # a descriptor duplicated onto itself loses its close-on-exec flag
                *((os.POSIX_SPAWN_DUP2, fd, fd) for fd in inherited),
            ],
            setsid=True,  # a terminal's Ctrl-C is the broker's to handle
            setsigmask=[],
            setsigdef=[one for one in signal.valid_signals() if one not in (signal.SIGKILL, signal.SIGSTOP)],
        )
    finally:
        os.close(image)


def _opened(data: bytes, flags: int) -> tuple[int, int, bytes]:
    """A packet's type, number and body. Raises ProtocolError."""
    if flags & socket.MSG_TRUNC or len(data) < messages.HEADER.size:
        raise ProtocolError("the launcher sent a packet out of size")
    kind, length, number = messages.HEADER.unpack_from(data)
    if length != len(data):
        raise ProtocolError(f"the launcher sent {len(data)} bytes and announced {length}")
    return kind, number, data[messages.HEADER.size :]


def _resolve(future: asyncio.Future[Any], value: object) -> bool:
    """Whether somebody may still hear it."""
    if future.done():
        return False
    future.set_result(value)
    return True


def _descriptors(control: Iterable[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found.tolist()


def _collected(bits: int, fds: list[int]) -> dict[int, int]:
    """Which COLLECT has which descriptor; takes them out of `fds`. Fewer than announced: we are out of them."""
    present = [index for index in range(abi.MAX_COLLECT) if bits >> index & 1]
    files = dict(zip(present, fds, strict=False))
    del fds[: len(files)]
    return files


def _close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
