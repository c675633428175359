"""One daemon for the folder, a caller without rights, and a project of his that is captured."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from immured import Client
from immured.client.sandbox import Sandbox
from immured.client.throwaway import ThrowawayDaemon
from immured.wire.keys import PrivateKey
from tests.changes.project import CALLER, OTHER, Captured, own
from tests.daemon import daemon
from tests.peers import connecting_as

__all__ = ["daemon"]


def _connected(daemon: ThrowawayDaemon, ground: Path, name: str, uid: int, role: str) -> Client:
    key = PrivateKey.generate()
    path = ground / f"{name}.pem"
    path.write_bytes(key.to_pem())
    path.chmod(0o600)
    with daemon.client() as admin:
        admin.key_add(name, key.public.to_pem(), role=role, uids=[uid])
    return as_caller(daemon.client(path), uid)


def as_caller(client: Client, uid: int = CALLER) -> Client:
    """Connected as that user."""
    with connecting_as(uid):
        client.connect()
    return client


@pytest.fixture(scope="package")
def ground() -> Iterator[Path]:
    base = Path(tempfile.mkdtemp(prefix="immured-changes-"))
    base.chmod(0o755)
    yield base
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="package")
def caller(daemon: ThrowawayDaemon, ground: Path) -> Iterator[Client]:
    """Who captures."""
    with _connected(daemon, ground, "changes", CALLER, "runner") as client:
        yield client


@pytest.fixture
def connect(caller: Client, daemon: ThrowawayDaemon, ground: Path) -> Callable[[], Client]:
    """One more connection of who captures."""
    return lambda: as_caller(daemon.client(ground / "changes.pem"))


@pytest.fixture(scope="package")
def other(daemon: ThrowawayDaemon, ground: Path) -> Iterator[Client]:
    """An admin of another uid: who may see every sandbox, and owns nothing of the caller's."""
    with _connected(daemon, ground, "changes-other", OTHER, "admin") as client:
        yield client


@pytest.fixture
def project(ground: Path) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(dir=ground, prefix="project-"))
    path.chmod(0o755)
    (path / "a.txt").write_text("one\ntwo\n")
    (path / "dir").mkdir()
    (path / "dir" / "b").write_text("b\n")
    (path / "dir" / "sub").mkdir()
    (path / "dir" / "sub" / "c").write_text("c\n")
    own(path)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def capture(caller: Client, project: Path) -> Iterator[Callable[..., Captured]]:
    """Makes a sandbox that has the project captured; more of [filesystem] by name."""
    made: list[Sandbox] = []

    def make(**filesystem: Any) -> Captured:
        manifest = {
            "schema": 1,
            "name": "captured",
            "filesystem": {"capture": [str(project)], **filesystem},
            "limits": {"memory": "512M", "disk": "64M", "wall": "10m"},
        }
        sandbox = caller.sandbox(manifest=manifest)
        made.append(sandbox)
        return Captured(sandbox, project)

    yield make
    for sandbox in made:
        sandbox.remove()


@pytest.fixture
def captured(capture: Callable[..., Captured]) -> Captured:
    return capture()
