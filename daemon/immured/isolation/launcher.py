"""The launcher, seen from the broker: an asyncio client of the SEQPACKET protocol in native/launcher/protocol.h.

The launcher is a root program of its own, started here from a sealed copy of its executable, or found where an earlier
broker left it with the sandboxes that live on. It hands over each connection that it accepts, prepares runs, sandboxes
and execs from plans, and reports how they ended. Sending never blocks: what the socket does not take waits in order.
Every descriptor is close-on-exec and closed on every path; those handed to a caller (`Connection.sock`,
`Outcome.files`, those of `kept`) are the caller's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from immured.errors import ConfigurationError, ImmuredError
from immured.host.facts import HostFacts
from immured.isolation import abi, launcher_start, messages
from immured.isolation.abi import Ability, Cause, Clerk, Controller, KeptKind, Message, Stage
from immured.isolation.launcher_kept import Keeping
from immured.isolation.launcher_link import Link
from immured.isolation.launcher_runs import (
    Creation,
    KeptExec,
    KeptFds,
    KeptSandbox,
    Live,
    LiveExec,
    LiveSandbox,
    Outcome,
    Pinned,
    resolve,
)
from immured.isolation.launcher_start import Settings
from immured.isolation.messages import Exited, Failed, Measures, Peer, PinnedFile, ProtocolError
from immured.isolation.sealed import sealed_memfd

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

__all__ = [
    "Connection",
    "Creation",
    "KeptExec",
    "KeptFds",
    "KeptSandbox",
    "Launcher",
    "LauncherLostError",
    "Outcome",
    "Pinned",
    "Settings",
]

_INLINE_PLAN: Final = 60 * 1024  # what a packet holds beside its own header
_RECEIVE_BURST: Final = 64  # packets per wake-up, so that a busy launcher does not starve the connections
_LAST_WORDS_S: Final = 1.0  # between the launcher's end of file and its exit status
_KEEPERS_S: Final = 10.0  # for every keeper to say what it kept
_POLL_S: Final = 0.005


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


class Launcher:
    """A running launcher. Made by `spawn` or `find`; used from one event loop's thread."""

    def __init__(
        self,
        sock: socket.socket,
        pid: int,
        *,
        on_connection: Callable[[Connection], None],
        on_lost: Callable[[str], None],
        ours: bool = True,
    ) -> None:
        """`sock`, our end, becomes ours; `pid` is the launcher's. `ours`: we started it, and end it."""
        self._loop = asyncio.get_running_loop()
        self._link = Link(sock, burst=_RECEIVE_BURST, take=self._packet, ended=self._end_of_file, broken=self._give_up)
        self._outcomes: Link | None = None  # comes with READY
        self._on_connection = on_connection
        self._on_lost = on_lost
        self._runs: dict[int, Live] = {}
        self._keeping = Keeping(listening=not ours)
        self._ready: asyncio.Future[HostFacts] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._facts: HostFacts | None = None
        self._abilities = messages.NO_ABILITY
        self._counts: list[asyncio.Future[messages.Counts]] = []
        self._lost: str | None = None
        self._closing = False
        self._ours = ours
        self._epoch = 1 + secrets.randbelow(2**31 - 1)
        self._numbers = 0
        self._pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._loop.add_reader(self._pidfd, self._exited)

    @classmethod
    async def spawn(
        cls,
        executable: Path,
        settings: Settings,
        *,
        on_connection: Callable[[Connection], None],
        on_lost: Callable[[str], None],
        ready_timeout: float = 20.0,
    ) -> Launcher:
        """Start the launcher and wait for READY; `facts` is known then.

        `on_lost(reason)` is called once if the launcher ends without `close`. Raises ConfigurationError
        ("launcher_failed") where it does not start or does not answer within `ready_timeout` seconds.
        """
        try:
            sock, pid = launcher_start.start(executable, settings)
        except OSError as error:
            raise ConfigurationError(
                "launcher_failed",
                f"{executable}: {error.strerror or error}",
                "build it with `make build`, and run the daemon as root",
            ) from error
        launcher = cls(sock, pid, on_connection=on_connection, on_lost=on_lost)
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

    @classmethod
    async def find(
        cls,
        control: Path,
        *,
        on_connection: Callable[[Connection], None],
        on_lost: Callable[[str], None],
        ready_timeout: float = 20.0,
    ) -> Launcher | None:
        """The launcher that lives on at `control`, once it has said READY and its keepers what they kept (`kept`); None
        where there is none, or it is about to end.

        Raises ConfigurationError `launcher_failed` where one lives and does not answer, or is of another protocol.
        """
        found = launcher_start.connect(control)
        if found is None:
            return None
        try:
            launcher = cls(*found, on_connection=on_connection, on_lost=on_lost, ours=False)
        except ProcessLookupError:
            found[0].close()
            return None
        try:
            async with asyncio.timeout(ready_timeout):
                await launcher._ready
            await launcher._hear_keepers()
        except LauncherLostError as error:
            protocol = launcher._keeping.refused
            await launcher.close()
            if protocol is None:
                return None
            raise _not_usable(control, error.message) from error
        except TimeoutError as error:
            await launcher.close()
            raise _not_usable(control, f"no answer within {ready_timeout:g} s") from error
        except BaseException:
            await launcher.close()
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
    def ours(self) -> bool:
        """Whether this broker started it, and so ends it with everything that it runs."""
        return self._ours

    @property
    def runs(self) -> frozenset[int]:
        """The runs, sandboxes and execs that have not ended."""
        return frozenset(self._runs)

    def new_number(self) -> int:
        """A number that no run, sandbox or exec of this launcher has or had, whoever its broker was."""
        self._numbers += 1
        return self._epoch << 32 | self._numbers

    # -- what lives on from before

    @property
    def kept(self) -> tuple[KeptSandbox, ...]:
        """The sandboxes that lived on without a broker, with their execs that did. Empty where the launcher is new."""
        return self._keeping.sandboxes

    @property
    def told(self) -> frozenset[int]:
        """Numbers of sandboxes and execs that ended while there was no broker: `adopt` answers at once. Runs that
        nobody knows any more may be among them."""
        return frozenset(self._keeping.ends)

    def adopt(self, number: int) -> Awaitable[Outcome]:
        """How a kept sandbox or exec ends, or did meanwhile (`told`). Once each; raises LookupError for any other."""
        return self._keeping.adopt(number)

    def adopted_all(self) -> None:
        """Nobody else is adopted: ends that nobody asked for are forgotten. What lives and was not adopted lives on."""
        self._keeping.forget()

    # -- runs

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
        in_memfd = len(plan) > _INLINE_PLAN
        data = messages.encode_prepare(run, connection, plan, in_memfd=in_memfd, ours=ours, logged=log is not None)
        logs = () if log is None else (log,)
        return self._start(run, Live(self._loop.create_future(), None), data, plan if in_memfd else None, fds, logs)

    def pinned(self, run: int) -> Awaitable[Pinned | None]:
        """What a run or an exec whose plan has a PIN is about to execute, once it is prepared; None where it ended
        before. Ask right after `prepare` or `exec`, and once. Raises LauncherLostError from the answer."""
        live = self._runs.get(run)
        if live is None or live.pinned_taken:
            raise LookupError(f"no run {run} whose pins could be had")
        live.pinned = live.pinned or self._loop.create_future()
        live.pinned_taken = True
        return live.pinned

    def go(self, run: int) -> None:
        """The intent is durable: let a run or an exec execute, at once or as soon as it is prepared. Nothing happens
        for one that is over. Call it once."""
        record = self._runs.get(run)
        if record is not None and record.gate is not None:
            record.gone = True
            with contextlib.suppress(BrokenPipeError):  # it failed meanwhile: its end is on the way
                os.write(record.gate, b"g")
            record.shut()

    def kill(self, run: int, cause: Cause = Cause.KILLED) -> None:
        """End a run, a sandbox or an exec with everything in it; `cause` is what its outcome will name. Nothing happens
        once it is over."""
        if run in self._runs:
            self._send(messages.encode_kill(run, cause))

    # -- sandboxes

    def create(self, number: int, connection: int, plan: bytes, record_fd: int) -> Creation:
        """Make a sandbox at once, so its intent is durable by now. `connection` 0: nobody's, and its plan names no path
        of a caller's. `record_fd`, borrowed, is what a later broker reads of it (`KeptSandbox.record`).

        Raises LauncherLostError here or from the answers; OSError (EMFILE) and ValueError (a number in use) here.
        """
        self._check(number)
        in_memfd = len(plan) > _INLINE_PLAN
        data = messages.encode_create(number, connection, plan, in_memfd=in_memfd)
        live = LiveSandbox(self._loop.create_future(), None, created=self._loop.create_future())
        self._send_plan(data, plan if in_memfd else None, (record_fd,))
        self._runs[number] = live
        return Creation(live.created, live.outcome)

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
        """As `prepare`, in a sandbox that lives; then `go(number)`. With `kept` it outlives this broker, and its output
        goes to its log. A plan with a TERMINAL uses none of `fds` (any descriptors do): see `terminal`."""
        in_memfd = len(plan) > _INLINE_PLAN
        data = messages.encode_exec(
            number, sandbox, plan, in_memfd=in_memfd, ours=ours, logged=log is not None, kept=kept is not None
        )
        more = (*(() if kept is None else kept.all()), *(() if log is None else (log,)))
        live = LiveExec(self._loop.create_future(), None, sandbox=sandbox)
        return self._start(number, live, data, plan if in_memfd else None, fds, more)

    def terminal(self, number: int) -> Awaitable[int]:
        """The master of an exec's terminal, a descriptor that is the caller's; once for each exec. Raises LookupError,
        here or from the answer, where the exec is over or ends without one."""
        live = self._runs.get(number)
        if not isinstance(live, LiveExec) or live.terminal_taken:
            raise LookupError(f"no exec {number} whose terminal could be had")
        live.terminal = live.terminal or self._loop.create_future()
        live.terminal_taken = True
        return live.terminal

    def signal(self, number: int, signo: int, everybody: bool = False) -> None:
        """A signal to an exec's first process (with a terminal: its foreground group), or to all of its processes.
        Nothing happens once it is over."""
        if number in self._runs:
            self._send(messages.encode_signal(number, signo, everybody=everybody))

    def resize(self, number: int, rows: int, columns: int) -> None:
        """The size of an exec's terminal, in characters."""
        if number in self._runs:
            self._send(messages.encode_resize(number, rows, columns))

    def close_stdin(self, number: int) -> None:
        """A kept exec's stdin ends, once nobody else holds its writing end either."""
        if number in self._runs:
            self._send(messages.encode_close_stdin(number))

    def freeze(self, sandbox: int, on: bool) -> Awaitable[None]:
        """Freeze or thaw a sandbox's execs. Raises LookupError (here or from the answer: it ended), and from the answer
        OSError, where the kernel did not (it is as it was)."""
        live = self._sandbox(sandbox)
        self._send(messages.encode_freeze(sandbox, on=on))
        answer: asyncio.Future[None] = self._loop.create_future()
        live.freezes.append(answer)
        return answer

    def extend(self, sandbox: int, ns: int) -> None:
        """So many nanoseconds to live from now on. Raises LookupError where it ended."""
        self._sandbox(sandbox)
        self._send(messages.encode_extend(sandbox, ns))

    def measure(self, sandbox: int) -> Awaitable[Measures]:
        """What a sandbox has used and uses. Raises LookupError, here or from the answer, where it ended."""
        live = self._sandbox(sandbox)
        if not live.measures:
            self._send(messages.encode_measure(sandbox))
        answer: asyncio.Future[Measures] = self._loop.create_future()
        live.measures.append(answer)
        return answer

    def ask(self, sandbox: int, clerk: Clerk, connection: int) -> socket.socket:
        """A SEQPACKET socket, non-blocking and the caller's, that a clerk of the sandbox serves; its end of file
        without a word means that there is none. `connection` 0: on nobody's authority. Raises LookupError where the
        sandbox ended, OSError (EMFILE)."""
        self._sandbox(sandbox)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            with theirs:
                self._send(messages.encode_ask(sandbox, clerk, connection), (theirs.fileno(),))
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)
        return ours

    # -- connections

    def connection_closed(self, number: int) -> None:
        """Tell the launcher that a connection is closed, so that it forgets its peer."""
        if self._lost is None:
            self._send(messages.encode_connection_closed(number))

    def turn_away(self, uid: int, ms: int) -> None:
        """Let go of whoever connects as that user, for so long, before anything is done for him."""
        if self._lost is None and self._abilities & Ability.TURN_AWAY:
            self._send(messages.encode_turn_away(uid, ms))

    def counts(self) -> Awaitable[messages.Counts]:
        """How many payloads it let go. Raises LauncherLostError, here or from the answer; LookupError where it is of
        an earlier version, which does not count."""
        if self._lost is not None:
            raise LauncherLostError(self._lost)
        if not self._abilities & Ability.COUNT:
            raise LookupError("the launcher does not count: reload it (systemctl reload immured-launcher)")
        self._send(messages.encode_count())
        answer: asyncio.Future[messages.Counts] = self._loop.create_future()
        self._counts.append(answer)
        return answer

    def stop(self) -> None:
        """Accept nobody any more; what lives goes on. Where the launcher outlives us, who comes waits for the next."""
        if self._lost is None:
            self._send(messages.encode_stop() if self._ours else messages.encode_pause())

    # -- the end

    async def close(self, *, kill: bool = False, grace: float = 10.0) -> None:
        """Leave. A launcher of ours ends with everything that it runs, and is reaped: after `grace` seconds, or at once
        with `kill`, it is killed. Another one ends our runs, and keeps its sandboxes for whoever comes next.

        `on_lost` is not called; what still awaits an answer gets LauncherLostError, but for the ends of sandboxes that
        live on, and of execs in them: nobody is told of those any more.
        """
        self._closing = True
        if self._ours and self._lost is None and not kill:
            await self._end_sandboxes(grace)
        self._abandon("the daemon is stopping")
        self._keeping.close()
        if not self._ours:
            self._loop.remove_reader(self._pidfd)
            with contextlib.suppress(OSError):
                os.close(self._pidfd)
        elif kill or not await self._ends_within(grace):
            self._kill()
            await self._ends_within(grace)

    async def _end_sandboxes(self, grace: float) -> None:
        """Without this word it would keep them: a broker that goes may only have died."""
        for number, live in list(self._runs.items()):
            if isinstance(live, LiveSandbox):
                self.kill(number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                while self._link.waits:  # noqa: ASYNC110 - the end of a queue has no event of its own
                    await asyncio.sleep(_POLL_S)

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
        self._link.send(data, fds)

    def _send_plan(self, data: bytes, plan: bytes | None, fds: Sequence[int]) -> None:
        """`plan`: what goes in a memfd, before the other descriptors."""
        if plan is None:
            self._send(data, fds)
            return
        memfd = sealed_memfd("immured-plan", plan)
        try:
            self._send(data, [memfd, *fds])
        finally:
            os.close(memfd)

    def _check(self, number: int) -> None:
        if self._lost is not None:
            raise LauncherLostError(self._lost)
        if number in self._runs:
            raise ValueError(f"run {number} is not over")

    def _start(
        self, number: int, live: Live, data: bytes, plan: bytes | None, fds: Sequence[int], more: Sequence[int]
    ) -> Awaitable[Outcome]:
        """What waits for GO: its packet with its descriptors, GO's behind the first three."""
        self._check(number)
        if len(fds) != 3:
            raise ValueError("a run takes exactly the descriptors 0, 1 and 2")
        theirs, live.gate = os.pipe2(os.O_CLOEXEC)
        self._runs[number] = live
        try:
            self._send_plan(data, plan, [*fds, theirs, *more])
        except BaseException:
            self._runs.pop(number, None)
            live.shut()
            raise
        finally:
            os.close(theirs)
        return live.outcome

    def _sandbox(self, number: int) -> LiveSandbox:
        if self._lost is not None:
            raise LauncherLostError(self._lost)
        live = self._runs.get(number)
        if not isinstance(live, LiveSandbox):
            raise LookupError(f"no sandbox {number} lives")  # noqa: TRY004 - that is what it is to the caller
        return live

    # -- receiving

    def _packet(self, kind: int, number: int, body: bytes, fds: list[int]) -> None:
        """The launcher's own word. Whoever keeps a descriptor removes it from `fds`."""
        if kind == Message.CONN:
            self._connection(number, messages.parse_peer(body), fds)
        elif kind == Message.FAILED:
            failed = messages.parse_failed(body)
            while failed.stage is Stage.LOST and self._read_outcomes():
                pass  # what a warden said before it died stands, and may not have been read
            self._over(number, self._lost_if_it_ran(number, failed), {})
        elif kind == Message.COUNTS:
            counts = messages.parse_counts(body)
            if self._counts:
                resolve(self._counts.pop(0), counts)
        elif kind == Message.READY:
            try:
                self._set_ready(messages.parse_ready(body), fds)
            except ProtocolError as error:
                self._keeping.refused = str(error)
                raise
        else:
            raise ProtocolError(f"the launcher sent a message of the unknown type {kind}")

    def _lost_if_it_ran(self, number: int, failed: Failed) -> Exited | Failed:
        """Of one whose warden died, whether it ran is ours to know."""
        run = self._runs.get(number)
        return messages.LOST if failed.stage is Stage.LOST and run is not None and run.gone else failed

    def _end(self, kind: int, number: int, body: bytes, fds: list[int]) -> None:
        """A warden's word; descriptors as above."""
        if kind == Message.EXITED:
            exited = messages.parse_exited(body)
            run = self._runs.get(number)
            if run is not None and not run.gone:
                raise ProtocolError(f"a warden sent EXITED for run {number}, which was not let go")
            self._over(number, exited, _collected(exited.collected, fds))
        elif kind == Message.FAILED:
            failed = messages.parse_failed(body)
            self._over(number, self._lost_if_it_ran(number, failed), {})
        elif kind == Message.KEPT:
            self._kept(number, messages.parse_kept(body), fds)
        else:
            self._answered(kind, number, body, fds)

    def _answered(self, kind: int, number: int, body: bytes, fds: list[int]) -> None:
        """What a live sandbox or exec says; of one that is not ours it was meant for a broker before us."""
        live = self._runs.get(number)
        if kind == Message.CREATED:
            if isinstance(live, LiveSandbox):
                live.gone = True
                resolve(live.created, True)
        elif kind == Message.FROZEN:
            frozen = messages.parse_frozen(body)
            if isinstance(live, LiveSandbox):
                live.is_frozen(frozen)
        elif kind == Message.MEASURES:
            measures = messages.parse_measures(body)
            if isinstance(live, LiveSandbox):
                live.is_measured(measures)
        elif kind == Message.TERMINAL:
            if isinstance(live, LiveExec) and fds and live.has_terminal(fds[0]):
                del fds[0]
        elif kind == Message.PINNED:
            pinned = _pinned(messages.parse_pinned(body), fds)
            if live is not None and not isinstance(live, LiveSandbox) and live.is_pinned(pinned):
                fds.clear()
        else:
            raise ProtocolError(f"a warden sent a message of the unknown type {kind}")

    def _kept(self, number: int, kept: messages.Kept, fds: list[int]) -> None:
        if not self._keeping.awaits(kept.sandbox):
            return
        outcome: asyncio.Future[Outcome] = self._loop.create_future()
        if not self._keeping.take(number, kept, fds, outcome):
            return  # it ended already
        if kept.kind is KeptKind.SANDBOX:
            created: asyncio.Future[bool] = self._loop.create_future()
            created.set_result(True)
            self._runs[number] = LiveSandbox(outcome, None, gone=True, created=created)
        else:
            self._runs[number] = LiveExec(outcome, None, gone=True, sandbox=kept.sandbox)

    async def _hear_keepers(self) -> None:
        """Wait for what is kept. A keeper that does not answer has a sandbox that nobody can reach: it is ended."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KEEPERS_S):
                await self._keeping.heard.wait()
        while self._lost is None and self._read_outcomes():
            pass  # ends of those that READY did not name any more
        if self._lost is not None:
            raise LauncherLostError(self._lost)
        for number in self._keeping.settle():
            self._send(messages.encode_kill(number, Cause.KILLED))

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

    def _over(self, number: int, report: Exited | Failed, files: Mapping[int, int]) -> None:
        """Of a run that is over already this is the launcher's word after the warden's, and is dropped."""
        outcome = Outcome(report, files)
        live = self._runs.pop(number, None)
        if live is not None:
            live.release()
        if live is None and self._keeping.ended(number, outcome):
            return
        if live is None or not resolve(live.outcome, outcome):
            outcome.close()

    def _set_ready(self, ready: messages.Ready, fds: list[int]) -> None:
        if not fds or self._outcomes is not None:
            raise ProtocolError("READY without the end that wardens speak to, or a second time")
        ends = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fds.pop(0))
        # One at a time: most often there is one, and to be told so takes a while.
        self._outcomes = Link(ends, burst=1, take=self._end, ended=_nothing, broken=self._give_up)
        self._keeping.expect(ready.sandboxes)
        self._abilities = ready.abilities
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
        resolve(self._ready, self._facts)

    def _read_outcomes(self) -> bool:
        return self._outcomes is not None and self._outcomes.read()

    def _end_of_file(self) -> None:
        """Hear no more; its exit status, which says why, follows in a moment or not at all."""
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
        while self._lost is None and self._read_outcomes():
            pass
        while self._lost is None and self._link.read():
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
        self._link.close()
        if self._outcomes is not None:
            self._outcomes.close()
        lost = LauncherLostError(reason)
        if not self._ready.done():
            self._ready.set_exception(lost)
            self._ready.exception()
        self._keeping.heard.set()
        for answer in self._counts:
            if not answer.done():
                answer.set_exception(lost)
        self._counts.clear()
        live_on = self._closing and not self._ours
        for live in self._runs.values():
            if live_on and isinstance(live, LiveSandbox | LiveExec):
                live.shut()
            else:
                live.lose(lost)
        self._runs.clear()

    def _kill(self) -> None:
        if not self._ended.is_set():
            # a broker that gave up its rights cannot kill; the end of the socket still ends the launcher
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)


def _not_usable(control: Path, reason: str) -> ConfigurationError:
    return ConfigurationError(
        "launcher_failed",
        f"the launcher that lives at {control} does not answer as it should: {reason}",
        "reload it (systemctl reload immured-launcher) where it is of another version, or end it with its sandboxes",
    )


def _nothing() -> None:
    """The end of the wardens' way: the launcher holds it too, and its own end says more."""


def _pinned(files: tuple[PinnedFile, ...], fds: Sequence[int]) -> Pinned:
    """Which file has which descriptor. Fewer than announced: we are out of them."""
    fixed = [index for index, file in enumerate(files) if file.sha256 is None]
    return Pinned(files, dict(zip(fixed, fds, strict=False)))


def _collected(bits: int, fds: list[int]) -> dict[int, int]:
    """Which COLLECT has which descriptor; takes them out of `fds`. Fewer than announced: we are out of them."""
    present = [index for index in range(abi.MAX_COLLECT) if bits >> index & 1]
    files = dict(zip(present, fds, strict=False))
    del fds[: len(files)]
    return files
