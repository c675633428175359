"""One real daemon for the folder; every test ends by asking it for an honest run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from immured.client.throwaway import ThrowawayDaemon
from immured.wire.keys import PrivateKey
from tests.daemon import daemon
from tests.hostile.raw import Connection, command

__all__ = ["daemon"]


@pytest.fixture(scope="package")
def admin(daemon: ThrowawayDaemon) -> PrivateKey:
    return PrivateKey.from_pem(daemon.admin_key.read_bytes())


@pytest.fixture
def connection(daemon: ThrowawayDaemon) -> Iterator[Connection]:
    with Connection(daemon) as connected:
        yield connected


@pytest.fixture(autouse=True)
def still_serving(daemon: ThrowawayDaemon, admin: PrivateKey) -> Iterator[None]:
    yield
    with Connection(daemon) as connected:
        assert connected.ask(command(connected.daemon_id), admin)["ok"] is True
