"""The daemon, put together: what is opened in which order, what runs, and how it ends with everything recorded."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import os
import platform
import secrets
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import immured
from immured.errors import ConfigurationError, Refused
from immured.host.cgroup import choose_cgroup, step_aside
from immured.identity.replay import ReplayRecord
from immured.isolation.filesystem import Grants
from immured.isolation.launcher import Connection, Launcher
from immured.ledger import Ledger, Pending, entry_types
from immured.service import harden
from immured.service.commands import load_commands
from immured.service.context import Service, log, now_ms
from immured.service.dispatch import Dispatcher
from immured.service.limits import Limits
from immured.service.locks import SLOTS_PER_BLOCK, lock_slots, lock_state, wait_for_launcher
from immured.service.notify import notify
from immured.service.recovery import LostRun, Recovery
from immured.service.registry import Registry
from immured.service.server import Server
from immured.service.state import State, load_state, publish_key, save_keyring
from immured.wire.messages import Receipt

__all__ = ["Options", "serve"]

_LAUNCHER_WAIT_S: Final = 15.0
_KILLED_WAIT_S: Final = 15.0
_SWITCH_S: Final = 0.0005  # the ledger's thread waits at most so long for a busy event loop
_SLOT_LOCKS: Final = Path("/run/immured")
_RESERVED_DESCRIPTORS: Final = 256
_DESCRIPTORS_PER_RUN: Final = 10


@dataclass(frozen=True, slots=True)
class Options:
    """The command line's say; None leaves it to config.toml, and that to the defaults."""

    state: Path
    socket: Path | None = None
    cgroup: Path | None = None
    executable: Path = field(default_factory=lambda: Path(immured.__file__).parent / "_native" / "immured-launcher")


async def serve(options: Options, ready: Callable[[str], None]) -> int:
    """Serve a state directory until SIGTERM or SIGINT. Returns the exit status; `ready` is told once, in a line.

    Raises ConfigurationError for what keeps it from starting.
    """
    harden.hide_memory()
    descriptors = harden.raise_descriptor_limit()
    state = load_state(options.state)
    with contextlib.ExitStack() as held:
        _hold(held, lock_state(state.paths.lock))
        daemon = _Daemon(options, state, descriptors, held)
        await daemon.start()
        try:
            ready(daemon.greeting)
            notify("READY=1")
            return await daemon.until_stopped()
        finally:
            await daemon.end()


class _Daemon:
    def __init__(self, options: Options, state: State, descriptors: int, held: contextlib.ExitStack) -> None:
        self._options = options
        self._state = state
        self._held = held
        self._descriptors = descriptors
        self._actor = {"daemon": state.key.id}
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._lost: str | None = None
        self._socket = options.socket or state.paths.socket
        self._ledger: Ledger | None = None
        self._launcher: Launcher | None = None
        self._early: list[Connection] = []
        self._accepting = False
        self._timers: list[asyncio.TimerHandle] = []

    @property
    def greeting(self) -> str:
        """The line that says it is ready."""
        return f"immured {immured.__version__} serves {self._socket} as {self._state.key.id}"

    async def start(self) -> None:
        """Open everything. Raises ConfigurationError; what was opened by then `end` closes."""
        state, config = self._state, self._state.config
        try:
            lock = wait_for_launcher(state.paths.launcher_lock, _LAUNCHER_WAIT_S)
            replay = ReplayRecord()
            recovery = Recovery(replay, state.keyring, now_ms)
            self._ledger = ledger = Ledger.open(state.paths.root, visit=recovery.visit)
            if recovery.keyring is not state.keyring:
                save_keyring(state.paths, recovery.keyring)
            lost = [(run, self._tell_lost(ledger, run)) for run in recovery.lost]
            self._socket.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            publish_key(state.paths, self._socket)
            base, count = self._slots()
            cgroup = self._cgroup()
            try:
                self._launcher = launcher = await Launcher.spawn(
                    self._options.executable,
                    socket_path=self._socket,
                    slot_base=base,
                    slot_count=count,
                    cgroup=cgroup,
                    lock_fd=lock,
                    pool_min=config.pool_min,
                    pool_max=config.pool_max,
                    on_connection=self._accept,
                    on_lost=self._launcher_lost,
                    grant_read=config.read,
                    grant_write=config.write,
                    open_timeout_ms=config.open_timeout_ms,
                )
            finally:
                os.close(lock)
        except OSError as error:
            raise ConfigurationError(
                "cannot_start", f"{error.filename or state.paths.root}: {error.strerror}", "see `immure doctor`"
            ) from error
        harden.give_up_privileges()
        self._assemble(launcher, ledger, replay, recovery)
        boot = {
            "version": immured.__version__,
            "boot": self._service.boot.hex(),
            "pid": os.getpid(),
            "kernel": platform.release(),
            "socket": str(self._socket),
            "host": launcher.facts.to_map(),
        }
        try:
            await ledger.entry(entry_types.DAEMON_STARTED, self._actor, boot).durable()
            for run, pending in lost:
                receipt = await pending.durable()
                recovery.settle(run, Receipt(receipt.seq, receipt.leaf))
        except Refused as error:
            # Served all the same: every run is refused with the remedy named, and what reads can be asked.
            log.error("%s: %s", error.code, error.message)
        self._accept_from_now_on()
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 50, 100)
        sys.setswitchinterval(_SWITCH_S)

    def _tell_lost(self, ledger: Ledger, run: LostRun) -> Pending:
        data = {"sandbox": run.sandbox, "intent": run.intent, "reason": "the daemon ended before the run did"}
        return ledger.entry(entry_types.RUN_LOST, self._actor, data, closing=True)

    def _assemble(self, launcher: Launcher, ledger: Ledger, replay: ReplayRecord, recovery: Recovery) -> None:
        state, config = self._state, self._state.config
        self._service = service = Service(
            state=state,
            keyring=recovery.keyring,
            ledger=ledger,
            launcher=launcher,
            registry=Registry(min(config.max_runs, launcher.facts.slot_count), launcher.kill),
            replay=replay,
            boot=secrets.token_bytes(16),
            audiences=frozenset({state.key.id, *config.audiences}),
            grants=Grants(tuple(map(os.fsencode, config.read)), tuple(map(os.fsencode, config.write))),
        )
        self._dispatcher = Dispatcher(service, load_commands(), in_flight=config.requests_per_connection)
        self._server = Server(
            key=state.key,
            boot=service.boot,
            limits=self._limits(),
            on_frame=self._dispatcher.frame,
            misbehaved=service.misbehaviour.add,
            forget=launcher.connection_closed,
        )

    def _accept_from_now_on(self) -> None:
        self._accepting = True
        early, self._early = self._early, []
        for connection in early:
            self._server.accept(connection)
        self._every(self._state.config.misbehaviour_interval_s, self._tell_misbehaviour)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._signalled)

    async def until_stopped(self) -> int:
        """Serve; then stop in order. 0, or 1 where the launcher was lost."""
        await self._stop.wait()
        if self._lost is not None:
            await self._after_launcher()
            return self._status()
        assert self._launcher is not None  # noqa: S101 - `start` set it
        notify("STOPPING=1")
        service = self._service
        service.stopping = True
        with contextlib.suppress(Exception):
            self._launcher.stop()
        idle = self._loop.create_task(service.registry.wait_idle(self._state.config.stop_deadline_s))
        hurry = self._loop.create_task(self._hurry.wait())
        await asyncio.wait((idle, hurry), return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        idle.cancel()
        for run in service.registry:
            run.kill()
        if not await service.registry.wait_idle(_KILLED_WAIT_S):
            log.error("%d sandboxes did not end in time; the next start records them as lost", len(service.registry))
        return self._status()

    def _status(self) -> int:
        return 0 if self._lost is None else 1

    async def end(self) -> None:
        """Close everything that is open, in order: the last words to the ledger after the last outcome."""
        for timer in self._timers:
            timer.cancel()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.remove_signal_handler(number)
        launcher, ledger = self._launcher, self._ledger
        if hasattr(self, "_server"):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_KILLED_WAIT_S):
                    await self._dispatcher.finish()
            await asyncio.sleep(0)
            self._server.close_all()
            self._tell_misbehaviour()
        if launcher is not None:
            await launcher.close()
        if ledger is not None:
            with contextlib.suppress(Refused):
                await ledger.entry(entry_types.DAEMON_STOPPED, self._actor, self._last_words(), closing=True).durable()
            ledger.close()

    def _last_words(self) -> dict[str, object]:
        return {"reason": self._lost or "asked to stop"}

    async def _after_launcher(self) -> None:
        """Every live run learns that its launcher is lost, and records it."""
        log.error("%s; every live run is recorded as lost", self._lost)
        await self._service.registry.wait_idle(_KILLED_WAIT_S)

    def _accept(self, connection: Connection) -> None:
        if self._accepting:
            self._server.accept(connection)
        else:
            self._early.append(connection)

    def _launcher_lost(self, reason: str) -> None:
        self._lost = reason
        self._stop.set()
        self._hurry.set()

    def _signalled(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def _slots(self) -> tuple[int, int]:
        config = self._state.config
        if config.slot_base is not None and config.slot_count is not None:
            return config.slot_base, config.slot_count
        preferred = hashlib.sha256(os.fsencode(self._state.paths.root)).digest()[0]
        base, fd = lock_slots(_SLOT_LOCKS, preferred)
        _hold(self._held, fd)
        return base, SLOTS_PER_BLOCK

    def _cgroup(self) -> Path | None:
        cgroup = choose_cgroup(self._state.paths.root, self._options.cgroup or self._state.config.cgroup)
        step_aside(cgroup)
        return cgroup

    def _limits(self) -> Limits:
        config = self._state.config
        kept = _RESERVED_DESCRIPTORS + _DESCRIPTORS_PER_RUN * config.max_runs
        return Limits(
            connections_per_uid=config.connections_per_uid,
            requests_per_connection=config.requests_per_connection,
            connections=max(64, min(8192, self._descriptors - kept)),
        )

    def _tell_misbehaviour(self) -> None:
        self._service.denials.renew()
        for data in self._service.misbehaviour.take():
            with contextlib.suppress(Refused):
                self._service.ledger.entry(entry_types.PEER_MISBEHAVED, self._actor, data)

    def _every(self, seconds: float, call: Callable[[], None]) -> None:
        def again() -> None:
            call()
            self._timers[:] = [self._loop.call_later(seconds, again)]

        self._timers[:] = [self._loop.call_later(seconds, again)]


def _hold(held: contextlib.ExitStack, fd: int) -> None:
    held.callback(os.close, fd)
