"""One real daemon for the tests of a folder, whose conftest takes these fixtures over by name.

It ends with the folder: a host has ranges of ids for a few daemons at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from immured import Client
from immured.client.throwaway import ThrowawayDaemon

__all__ = ["client", "daemon", "mortal"]


@pytest.fixture(scope="package")
def daemon() -> Iterator[ThrowawayDaemon]:
    with ThrowawayDaemon() as running:
        yield running


@pytest.fixture(scope="package")
def client(daemon: ThrowawayDaemon) -> Iterator[Client]:
    """The daemon's admin."""
    with daemon.client() as connected:
        yield connected


@pytest.fixture
def mortal() -> Iterator[ThrowawayDaemon]:
    """One for the test alone, which may die of it."""
    with ThrowawayDaemon() as running:
        try:
            yield running
        finally:
            # A daemon that found its launcher leaves it alone when it stops; without sandboxes it ends by itself.
            with running.client() as client:
                client.prune(alive=True)
