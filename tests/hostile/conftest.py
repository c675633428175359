"""One real daemon for the folder; every test ends by asking it for an honest run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from immured.client.throwaway import ThrowawayDaemon
from immured.wire.keys import PrivateKey
from tests.hostile.raw import Connection, command

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.needs_root)


@pytest.fixture(scope="session")
def daemon() -> Iterator[ThrowawayDaemon]:
    with ThrowawayDaemon() as running:
        yield running


@pytest.fixture(scope="session")
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
