"""One real daemon for the tests of a folder, whose conftest takes these fixtures over by name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from immured import Client
from immured.client.throwaway import ThrowawayDaemon

__all__ = ["client", "daemon"]


@pytest.fixture(scope="session")
def daemon() -> Iterator[ThrowawayDaemon]:
    with ThrowawayDaemon() as running:
        yield running


@pytest.fixture(scope="session")
def client(daemon: ThrowawayDaemon) -> Iterator[Client]:
    """The daemon's admin."""
    with daemon.client() as connected:
        yield connected
