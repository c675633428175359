"""One real daemon for the folder, an orchestrator whose key is in its keyring, and keys that it certifies."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from immured import Client
from immured.client.policies import Policies
from immured.client.throwaway import ThrowawayDaemon
from immured.wire.certificate import chain_to_pem, issue
from immured.wire.keys import PrivateKey
from tests.daemon import client, daemon
from tests.patience import PATIENCE_S
from tests.policies import declare

__all__ = ["client", "daemon"]

HOUR_MS = 3_600_000
_NUMBERS = itertools.count()
RUNNING = ("run", "status", "whoami")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def certify(issuer: PrivateKey, subject: PrivateKey, name: str = "agent", **more: Any) -> bytes:
    """A certificate that holds now, for an hour, to run commands, unless told otherwise."""
    options: dict[str, Any] = {"now_ms": now_ms(), "life_ms": HOUR_MS, "permissions": RUNNING} | more
    return issue(issuer, subject.public, name, **options)


class Orchestrator:
    """`key` is in the keyring, as `name`. Clients that it makes act by chains that begin with it."""

    def __init__(self, daemon: ThrowawayDaemon, admin: Client, name: str, role: str = "runner", **bound: Any) -> None:
        self._daemon = daemon
        self.key = PrivateKey.generate()
        self.name = name
        admin.key_add(name, self.key.public, role=role, **bound)

    def client(self, **options: Any) -> Client:
        """Itself."""
        return Client(
            self._daemon.socket, self.key, self._daemon.daemon_key.read_bytes(), timeout=PATIENCE_S, **options
        )

    def agent(self, *chain: bytes, key: PrivateKey, **options: Any) -> Client:
        """Who holds the key that this chain ends in."""
        return Client(
            self._daemon.socket, key, self._daemon.daemon_key.read_bytes(),
            timeout=PATIENCE_S, certificate=chain_to_pem(chain), **options,
        )  # fmt: skip

    def certified(self, **more: Any) -> Client:
        """A new agent, under one certificate of its own."""
        key = PrivateKey.generate()
        return self.agent(certify(self.key, key, **more), key=key)


Making = Callable[..., Orchestrator]
Declaring = Callable[[str], None]


@pytest.fixture
def orchestrators(daemon: ThrowawayDaemon, client: Client, request: pytest.FixtureRequest) -> Making:
    """Makes orchestrators, each with a key of its own."""

    def make(role: str = "runner", **bound: Any) -> Orchestrator:
        name = f"{request.node.originalname}-{next(_NUMBERS)}"[-60:]
        return Orchestrator(daemon, client, name.strip("_-"), role, **bound)

    return make


@pytest.fixture
def declared(client: Client) -> Iterator[Callable[[str], None]]:
    """Puts lines of policy in force for one test."""
    before = Policies(client).show().policy
    yield lambda text: declare(client, text)
    if Policies(client).show().policy != before:
        Policies(client).set(before)


@pytest.fixture
def orchestrator(orchestrators: Making) -> Orchestrator:
    """A runner."""
    return orchestrators()
