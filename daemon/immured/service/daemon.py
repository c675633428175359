"""The daemon, put together: who connects is served, and when it is asked to stop everything ends recorded."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable
from typing import Final

import immured
from immured.errors import Refused
from immured.isolation.filesystem import Grants
from immured.isolation.launcher import Connection
from immured.ledger import entry_types
from immured.service import heap
from immured.service.audit_health import AuditHealth
from immured.service.commands import load_commands
from immured.service.context import Service, log
from immured.service.dispatch import Dispatcher
from immured.service.limits import Limits
from immured.service.notify import notify, watchdog_interval
from immured.service.registry import Registry
from immured.service.sandboxes.lifecycle import end_all
from immured.service.sandboxes.reconcile import reconcile
from immured.service.server import Server
from immured.service.startup import Opened, Options, open_all

__all__ = ["SWITCH_S", "Options", "serve"]

_KILLED_WAIT_S: Final = 15.0
_GOODBYE_S: Final = 2.0
_ENTRIES_S: Final = 0.5
SWITCH_S: Final = 0.0005  # the ledger's thread waits at most so long for a busy event loop
_RESERVED_DESCRIPTORS: Final = 256
_DESCRIPTORS_PER_RUN: Final = 10
_DESCRIPTORS_PER_SANDBOX: Final = 4  # its record; a detached exec's log, event and input
_MAX_CONNECTIONS: Final = 8192
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


async def serve(options: Options, ready: Callable[[str], None]) -> int:
    """Serve a state directory until SIGTERM, SIGINT or SIGHUP. Returns the exit status; `ready` is told a line, once.

    Raises ConfigurationError for what keeps it from starting.
    """
    daemon = _Daemon()
    async with open_all(options, on_connection=daemon.accept, on_lost=daemon.launcher_lost) as opened:
        daemon.assemble(opened)
        await daemon.take_up()
        ready(f"immured {immured.__version__} serves {opened.socket} as {opened.keys.id}")
        notify("READY=1")
        daemon.pat_watchdog(watchdog_interval())
        return await daemon.until_stopped()


class _Daemon:
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._lost: str | None = None
        self._early: list[Connection] = []
        self._accept: Callable[[Connection], None] = self._early.append

    def accept(self, connection: Connection) -> None:
        """A client connected; before all is ready it waits."""
        self._accept(connection)

    def pat_watchdog(self, interval_s: float | None) -> None:
        """Tell systemd that this loop turns, for as long as it does."""
        if interval_s is not None:
            notify("WATCHDOG=1")
            self._loop.call_later(interval_s, self.pat_watchdog, interval_s)

    def launcher_lost(self, reason: str) -> None:
        """The launcher is gone, and every sandbox with it."""
        self._lost = reason
        self._stop.set()

    def assemble(self, opened: Opened) -> None:
        """Put the parts together."""
        self._opened = opened
        state, config, launcher = opened.state, opened.state.config, opened.launcher
        cells = launcher.facts.slot_count - config.pool_max
        self._service = Service(
            state=state,
            authority=opened.recovery.authority,
            ledger=opened.ledger,
            launcher=launcher,
            registry=Registry(max(1, min(config.max_runs, cells)), launcher.kill, launcher.new_number),
            replay=opened.replay,
            boot=opened.boot,
            audiences=opened.keys.ids | set(config.audiences),
            keys=opened.keys,
            register=opened.recovery.manifests,
            exports=opened.exports,
            retaining=opened.retaining,
            witnesses=opened.witnesses,
            health=AuditHealth(
                opened.ledger,
                opened.exports,
                opened.witnesses,
                lambda: self._service.actor,
                config.require,
                config.checkpoint_s,
                opened.recovery.audit,
            ),
            volume_means=opened.volume_means,
            grants=Grants(tuple(map(os.fsencode, config.read)), tuple(map(os.fsencode, config.write))),
        )
        self._dispatcher = Dispatcher(self._service, load_commands(), in_flight=config.requests_per_connection)
        self._server = Server(
            keys=opened.keys,
            boot=opened.boot,
            limits=_limits(opened),
            on_frame=self._dispatcher.frame,
            misbehaved=self._service.misbehaviour.add,
            forget=launcher.connection_closed,
            turn_away=launcher.turn_away,
        )
        self._loop.call_later(config.misbehaviour_interval_s, self._every_interval)
        for number in _SIGNALS:
            self._loop.add_signal_handler(number, self._signalled)
        storage, shares = self._service.storage, self._service.shares
        shares.found("volume", storage.volumes.everything())
        shares.found("snapshot", storage.snapshots.everything())
        self._clearing = self._loop.run_in_executor(None, storage.clear, storage.leftovers())
        gc.collect()
        gc.freeze()
        heap.give_back()
        gc.set_threshold(20_000, 50, 100)
        sys.setswitchinterval(SWITCH_S)

    async def take_up(self) -> None:
        """Meet what lives on from before this daemon; then let in who connected by now."""
        self._service.manifests.look_at_all()
        await reconcile(self._service, self._opened.recovery.lived)
        self._accept = self._server.accept
        for connection in self._early:
            self._server.accept(connection)
        self._early.clear()
        if self._service.health is not None:
            self._service.health.start()
        self._service.templates.start()
        self._service.end_overlap()

    async def until_stopped(self) -> int:
        """Serve; then stop in order. 0, or 1 where the launcher was lost."""
        await self._stop.wait()
        notify("STOPPING=1")
        service = self._service
        service.stopping = True
        service.templates.stop()
        if service.health is not None:
            service.health.stop()
        if self._lost is None:
            self._opened.launcher.stop()
            await self._let_runs_end()
        for run in service.registry:
            run.kill()
        await self._leave_sandboxes()
        if not await service.registry.wait_idle(_KILLED_WAIT_S):
            log.error("%d sandboxes did not end in time; the next start records them as lost", len(service.registry))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KILLED_WAIT_S):
                await self._dispatcher.finish()
        if service.tasks:
            # With a launcher that goes on, some wait for ends that another daemon will hear of.
            ours = self._opened.launcher.ours
            _, late = await asyncio.wait(service.tasks, timeout=_KILLED_WAIT_S if ours else _ENTRIES_S)
            if late and ours:
                log.error("%d tasks did not end in time", len(late))
        await self._server.say_goodbye(_GOODBYE_S)
        self._tell_misbehaviour()
        if self._lost is None:
            self._opened.ending = "asked to stop"
            return 0
        log.error("%s; every live run was recorded as lost", self._lost)
        self._opened.ending = self._lost
        return 1

    async def _leave_sandboxes(self) -> None:
        """With a launcher of our own they end; one that outlives us keeps them, but for the execs that are not kept."""
        service = self._service
        if self._lost is not None:
            return
        if self._opened.launcher.ours:
            await end_all(service, "the daemon is stopping")
            return
        for sandbox in service.sandboxes:
            for one in sandbox.execs.values():
                if one.live and not one.kept:
                    one.killed = True
                    self._opened.launcher.kill(one.number)

    async def _let_runs_end(self) -> None:
        """By the deadline, or until a second signal says to hurry."""
        deadline = self._opened.state.config.stop_deadline_s
        waits = [
            self._loop.create_task(self._service.registry.wait_idle(deadline)),
            self._loop.create_task(self._hurry.wait()),
        ]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    def _signalled(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def _every_interval(self) -> None:
        self._loop.call_later(self._opened.state.config.misbehaviour_interval_s, self._every_interval)
        self._service.denials.renew()
        self._tell_misbehaviour()

    def _tell_misbehaviour(self) -> None:
        for data in self._service.misbehaviour.take():
            with contextlib.suppress(Refused):
                self._opened.ledger.entry(entry_types.PEER_MISBEHAVED, self._service.actor, data)


def _limits(opened: Opened) -> Limits:
    config = opened.state.config
    kept = _RESERVED_DESCRIPTORS + _DESCRIPTORS_PER_RUN * config.max_runs
    kept += _DESCRIPTORS_PER_SANDBOX * config.sandboxes_max
    return Limits(
        connections_per_uid=config.connections_per_uid,
        bad_frames_per_uid=config.bad_frames_per_uid,
        requests_per_connection=config.requests_per_connection,
        connections=max(64, min(_MAX_CONNECTIONS, opened.descriptors - kept)),
    )
