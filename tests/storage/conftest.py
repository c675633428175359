"""One real daemon for the folder, and what its tests say often."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from immured import Client
from immured.client.outcome import RunResult
from immured.client.throwaway import ThrowawayDaemon
from immured.client.volumes import Volumes
from immured.wire.keys import PrivateKey
from tests.daemon import client, daemon
from tests.peers import connecting_as

__all__ = ["client", "daemon"]

MIB = 1 << 20
PEER = 4245
Shell = Callable[..., RunResult]


@pytest.fixture
def volume(client: Client) -> Iterator[str]:
    """A volume of 32 MiB and 300 files."""
    name = f"v-{secrets.token_hex(4)}"
    volumes = Volumes(client)
    volumes.create(name, bytes=32 * MIB, files=300)
    yield name
    if name in [one.name for one in volumes.list()]:
        volumes.remove(name)


@pytest.fixture
def shell(client: Client) -> Shell:
    """One run of sh with a manifest's [filesystem]."""

    def run(script: str, **filesystem: Any) -> RunResult:
        manifest = {"schema": 1, "name": "storage", "filesystem": filesystem, "limits": {"wall": "120s"}}
        return client.run(["/bin/sh", "-c", script], manifest=manifest)

    return run


@contextlib.contextmanager
def as_peer(daemon: ThrowawayDaemon) -> Iterator[Client]:
    """A client whose peer is an ordinary user: whose directories a sandbox may have."""
    key = PrivateKey.generate()
    with daemon.client() as admin:
        admin.key_add(f"peer-{secrets.token_hex(4)}", key.public.to_pem(), role="runner", uids=[PEER])
    client = Client(socket=str(daemon.socket), key=key, daemon_key=str(daemon.daemon_key))
    with connecting_as(PEER):
        client.connect()
    with client:
        yield client
