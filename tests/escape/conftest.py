"""One daemon for the catalogue, a caller without rights, and cells without a filter for the controls."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from immured import Client
from immured.client.throwaway import ThrowawayDaemon
from immured.wire.keys import PrivateKey
from tests.daemon import daemon
from tests.escape.harness import CALLER, Way, World, as_exec
from tests.escape.scenes import set_scene
from tests.peers import connecting_as
from tests.warden.cell import Cell
from tests.warden.conftest import cells, controllers, harness, subtree

__all__ = ["cells", "controllers", "daemon", "harness", "subtree"]


@pytest.fixture(scope="package")
def ground() -> Iterator[Path]:
    """The tests' own directory; whatever is made on the host is made below it."""
    base = Path(tempfile.mkdtemp(prefix="immured-escape-"))
    base.chmod(0o755)
    yield base
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="package")
def caller(daemon: ThrowawayDaemon, ground: Path) -> Iterator[Client]:
    """A client whose uid, groups and key are an unprivileged caller's."""
    key = PrivateKey.generate()
    path = ground / "caller.pem"
    path.write_bytes(key.to_pem())
    path.chmod(0o600)
    with daemon.client() as admin:
        admin.key_add("escape", key.public.to_pem(), role="runner", uids=[CALLER])
    with daemon.client(path) as client:
        with connecting_as(CALLER):
            client.connect()
        yield client


def make_world(
    run: Way, caller: Client, daemon: ThrowawayDaemon, ground: Path, request: pytest.FixtureRequest
) -> World:
    def cell() -> Cell:
        """Made only for the ideas that need one."""
        make: Callable[..., Cell] = request.getfixturevalue("cells")
        return make()

    return World(run, ground, cell, set_scene(caller, daemon, ground))


@pytest.fixture
def world(caller: Client, daemon: ThrowawayDaemon, ground: Path, request: pytest.FixtureRequest) -> World:
    """Where an idea is a run."""
    return make_world(caller.run, caller, daemon, ground, request)


@pytest.fixture
def living_world(caller: Client, daemon: ThrowawayDaemon, ground: Path, request: pytest.FixtureRequest) -> World:
    """Where an idea is an exec in a sandbox that lives."""
    return make_world(as_exec(caller), caller, daemon, ground, request)
