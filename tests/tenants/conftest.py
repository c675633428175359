"""One real daemon with two tenants, whose keys one ordinary user holds, and host paths that one of them has."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from immured import Client
from immured.client.throwaway import ThrowawayDaemon
from immured.wire.keys import PrivateKey
from tests.peers import connecting_as
from tests.policies import declare

USER = 4251
OWNER = 4252
TENANTS = """
[tenants.acme]
projects = ["web"]
paths = ["datasets", "results", "nowhere"]
[tenants.rival]
projects = ["web"]
"""


@dataclass(frozen=True)
class Ground:
    """Directories that the user may not open by himself."""

    datasets: Path
    results: Path


@pytest.fixture(scope="package")
def ground() -> Iterator[Ground]:
    base = Path(tempfile.mkdtemp(prefix="immured-tenants-"))
    closed = base / "closed"
    closed.mkdir(mode=0o700)
    base.chmod(0o711)
    ground = Ground(closed / "datasets", closed / "results")
    for path, owner, mode in ((ground.datasets, 0, 0o755), (ground.results, OWNER, 0o700)):
        path.mkdir(mode=mode)
        path.chmod(mode)
        (path / "note").write_text(f"{path.name}\n")
        for each in (path, path / "note"):
            os.chown(each, owner, owner)
    yield ground
    shutil.rmtree(base)


@pytest.fixture(scope="package")
def daemon(ground: Ground) -> Iterator[ThrowawayDaemon]:
    parent = Path(tempfile.mkdtemp(prefix="immured-"))
    parent.chmod(0o711)
    state = parent / "state"
    ThrowawayDaemon.immure("init", "--state", str(state))
    config = state / "config.toml"
    named = (
        "[paths.named]\n"
        f'datasets = {{ path = "{ground.datasets}" }}\n'
        f'results = {{ path = "{ground.results}", access = "write" }}\n'
    )
    config.write_text(config.read_text().replace("[paths.named]\n", named))
    with ThrowawayDaemon(state=state) as running:
        with running.client() as admin:
            declare(admin, TENANTS)
        yield running
    shutil.rmtree(parent)


@pytest.fixture(scope="package")
def admin(daemon: ThrowawayDaemon) -> Iterator[Client]:
    with daemon.client() as connected:
        yield connected


@contextlib.contextmanager
def as_tenant(daemon: ThrowawayDaemon, admin: Client, tenant: str, role: str = "platform-engineer") -> Iterator[Client]:
    """A client of that tenant's, whose peer is an ordinary user."""
    key = PrivateKey.generate()
    name = f"{tenant}-{key.id[-8:]}"
    admin.key_add(name, key.public.to_pem(), role=role, uids=[USER], tenants=[tenant])
    client = Client(socket=str(daemon.socket), key=key, daemon_key=str(daemon.daemon_key))
    with connecting_as(USER):
        client.connect()
    with client:
        yield client


@pytest.fixture(scope="package")
def acme(daemon: ThrowawayDaemon, admin: Client) -> Iterator[Client]:
    with as_tenant(daemon, admin, "acme") as client:
        yield client


@pytest.fixture(scope="package")
def rival(daemon: ThrowawayDaemon, admin: Client) -> Iterator[Client]:
    with as_tenant(daemon, admin, "rival") as client:
        yield client
