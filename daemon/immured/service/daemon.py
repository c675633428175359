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
from immured.service.commands import load_commands
from immured.service.context import Service, log
from immured.service.dispatch import Dispatcher
from immured.service.limits import Limits
from immured.service.notify import notify
from immured.service.registry import Registry
from immured.service.server import Server
from immured.service.startup import Opened, Options, open_all

__all__ = ["Options", "serve"]

_KILLED_WAIT_S: Final = 15.0
_GOODBYE_S: Final = 2.0
_SWITCH_S: Final = 0.0005  # the ledger's thread waits at most so long for a busy event loop
_RESERVED_DESCRIPTORS: Final = 256
_DESCRIPTORS_PER_RUN: Final = 10
_MAX_CONNECTIONS: Final = 8192
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


async def serve(options: Options, ready: Callable[[str], None]) -> int:
    """Serve a state directory until SIGTERM, SIGINT or SIGHUP. Returns the exit status; `ready` is told a line, once.

    Raises ConfigurationError for what keeps it from starting.
    """
    daemon = _Daemon()
    async with open_all(options, on_connection=daemon.accept, on_lost=daemon.launcher_lost) as opened:
        daemon.assemble(opened)
        ready(f"immured {immured.__version__} serves {opened.socket} as {opened.state.key.id}")
        notify("READY=1")
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

    def launcher_lost(self, reason: str) -> None:
        """The launcher is gone, and every sandbox with it."""
        self._lost = reason
        self._stop.set()

    def assemble(self, opened: Opened) -> None:
        """Put the parts together and let in who connected by now."""
        self._opened = opened
        state, config, launcher = opened.state, opened.state.config, opened.launcher
        cells = launcher.facts.slot_count - config.pool_max
        self._service = Service(
            state=state,
            keyring=opened.recovery.keyring,
            ledger=opened.ledger,
            launcher=launcher,
            registry=Registry(max(1, min(config.max_runs, cells)), launcher.kill),
            replay=opened.replay,
            boot=opened.boot,
            audiences=frozenset({state.key.id, *config.audiences}),
            grants=Grants(tuple(map(os.fsencode, config.read)), tuple(map(os.fsencode, config.write))),
        )
        self._dispatcher = Dispatcher(self._service, load_commands(), in_flight=config.requests_per_connection)
        self._server = Server(
            key=state.key,
            boot=opened.boot,
            limits=_limits(opened),
            on_frame=self._dispatcher.frame,
            misbehaved=self._service.misbehaviour.add,
            forget=launcher.connection_closed,
        )
        self._accept = self._server.accept
        for connection in self._early:
            self._server.accept(connection)
        self._loop.call_later(config.misbehaviour_interval_s, self._every_interval)
        for number in _SIGNALS:
            self._loop.add_signal_handler(number, self._signalled)
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 50, 100)
        sys.setswitchinterval(_SWITCH_S)

    async def until_stopped(self) -> int:
        """Serve; then stop in order. 0, or 1 where the launcher was lost."""
        await self._stop.wait()
        notify("STOPPING=1")
        service = self._service
        service.stopping = True
        if self._lost is None:
            self._opened.launcher.stop()
            await self._let_runs_end()
        for run in service.registry:
            run.kill()
        if not await service.registry.wait_idle(_KILLED_WAIT_S):
            log.error("%d sandboxes did not end in time; the next start records them as lost", len(service.registry))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KILLED_WAIT_S):
                await self._dispatcher.finish()
        await self._server.say_goodbye(_GOODBYE_S)
        self._tell_misbehaviour()
        if self._lost is None:
            self._opened.ending = "asked to stop"
            return 0
        log.error("%s; every live run was recorded as lost", self._lost)
        self._opened.ending = self._lost
        return 1

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
    return Limits(
        connections_per_uid=config.connections_per_uid,
        requests_per_connection=config.requests_per_connection,
        connections=max(64, min(_MAX_CONNECTIONS, opened.descriptors - kept)),
    )
