"""The daemon, as the model's other side: its service in this process under a clock that is stepped, and a live one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from immured.client.throwaway import ThrowawayDaemon
from immured.identity.authority import Authority
from immured.identity.replay import ReplayRecord
from immured.ledger import Ledger
from immured.service.policies import choose, shipped_policy
from immured.service.recovery import Recovery
from immured.service.state import init_state, load_state, save_keyring
from immured.wire.keys import PrivateKey
from immured.wire.messages import Reply
from tests.matrix.raw import Raw
from tests.service.harness import Client, Harness

__all__ = ["Inside", "Live", "Side"]

_MEMORY: Final = Path("/dev/shm")


class Side(Protocol):
    """What is asked. `now` is ms since the epoch."""

    admin: PrivateKey

    @property
    def now(self) -> int: ...

    def advance(self, ms: int) -> None: ...

    def ask(self, key: PrivateKey, uid: int, cmd: str, args: Mapping[str, object], **names: Any) -> Reply: ...

    def restart(self) -> None: ...

    def close(self) -> None: ...


class Inside:
    """The whole service over a real ledger, but for the launcher; what decides after a restart is folded from it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._directory = Path(tempfile.mkdtemp(dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None))
        self._root = self._directory / "state"
        init_state(self._root)
        self.now = 1_900_000_000_000
        self._harness: Harness
        self._clients: dict[int, Client] = {}
        self._loop.run_until_complete(self._start())
        self.admin = self._harness.admin

    def advance(self, ms: int) -> None:
        self.now += ms

    def ask(self, key: PrivateKey, uid: int, cmd: str, args: Mapping[str, object], **names: Any) -> Reply:
        return self._loop.run_until_complete(self._ask(key, uid, cmd, args, names))

    async def _ask(
        self, key: PrivateKey, uid: int, cmd: str, args: Mapping[str, object], names: Mapping[str, Any]
    ) -> Reply:
        if uid not in self._clients:
            self._clients[uid] = self._harness.connect(uid=uid)
        self._clients[uid].key = key
        return await self._clients[uid].ask(cmd, args, **names)

    def restart(self) -> None:
        self._loop.run_until_complete(self._stop())
        self._loop.run_until_complete(self._start())

    def close(self) -> None:
        self._loop.run_until_complete(self._stop())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        shutil.rmtree(self._directory)

    async def _start(self) -> None:
        state = load_state(self._root)
        authority, replay = Authority(state.keyring, shipped_policy()), ReplayRecord()
        recovery = Recovery(replay, authority, lambda: self.now)
        Ledger.open(self._root, visit=recovery.visit, clock=self._nanoseconds).close()
        if authority.keyring is not state.keyring:
            save_keyring(state.paths, authority.keyring)
        authority.forget(self.now)
        authority.set_policy(choose(state.paths, recovery.policies, shipped_policy()).policy)
        self._harness = harness = Harness(state)
        await harness.__aenter__()
        harness.ledger.close()
        harness.ledger = harness.service.ledger = Ledger.open(self._root, clock=self._nanoseconds)
        harness.service.authority, harness.service.replay = authority, replay
        harness.service.clock = lambda: self.now

    async def _stop(self) -> None:
        self._clients.clear()
        await self._harness.__aexit__(None, None, None)

    def _nanoseconds(self) -> int:
        return self.now * 1_000_000


class Live:
    """A daemon; its clock is everybody's."""

    def __init__(self) -> None:
        self._held = contextlib.ExitStack()
        self._daemon = self._held.enter_context(ThrowawayDaemon())
        self._connections: dict[int, Raw] = {}
        self.admin = PrivateKey.from_pem(self._daemon.admin_key.read_bytes())

    @property
    def now(self) -> int:
        return time.time_ns() // 1_000_000

    def advance(self, ms: int) -> None:
        raise NotImplementedError(f"{ms} ms have to be waited for")

    def ask(self, key: PrivateKey, uid: int, cmd: str, args: Mapping[str, object], **names: Any) -> Reply:
        if uid not in self._connections:
            with _as(uid):
                self._connections[uid] = Raw(self._daemon.socket)
        return self._connections[uid].one(key, cmd, args, **names)

    def restart(self) -> None:
        self._disconnect()
        self._daemon.kill()
        self._daemon.start()

    def close(self) -> None:
        self._disconnect()
        self._held.close()

    def _disconnect(self) -> None:
        for one in self._connections.values():
            one.__exit__(None, None, None)
        self._connections.clear()


@contextlib.contextmanager
def _as(uid: int) -> Iterator[None]:
    """Whoever connects within is that user."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
