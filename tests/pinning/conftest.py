"""One real daemon for the folder, its ledger, and a directory of a caller's own."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from immured import Client
from immured.client.throwaway import ThrowawayDaemon
from immured.wire.keys import PrivateKey
from tests.daemon import client, daemon, mortal
from tests.entries import entries_in
from tests.overlays import on_overlay
from tests.walls.acting import as_user

__all__ = ["CALLER", "client", "daemon", "digest", "manifest", "mortal", "own", "pinned", "put", "row"]

CALLER = 1000


def digest(path: Path | str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def row(path: str, file: Path | str | None = None, **more: Any) -> dict[str, Any]:
    """What the ledger has of an executed file of root's. What an overlay shows counts as anybody's, even the host's."""
    found = Path(file or path)
    if on_overlay(found):
        more["changeable"] = True
    return {"path": path, "sha256": digest(found), "size": found.stat().st_size, **more}


def manifest(*allow: Any, **tables: Any) -> dict[str, Any]:
    """An inline manifest that allows these programs, and so pins them."""
    command = {"allow": list(allow), "pass_env": ["*"], **tables.pop("command", {})}
    return {"schema": 1, "command": command, **tables}


def put(path: Path, content: bytes | str, mode: int = 0o755) -> Path:
    """A file of the caller's."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    os.chown(path, CALLER, CALLER)
    return path


Pinned = Callable[[dict[str, Any] | str | bytes | int], list[dict[str, Any]]]


@pytest.fixture
def entries(daemon: ThrowawayDaemon) -> Callable[[str], list[dict[str, Any]]]:
    """The ledger's entries of one type."""

    def of(kind: str) -> list[dict[str, Any]]:
        return [one for one in entries_in(daemon.state) if one["type"] == kind]

    return of


@pytest.fixture
def pinned(daemon: ThrowawayDaemon) -> Callable[[int], list[dict[str, Any]]]:
    """What the intent at this place in the ledger says is executed."""

    def at(seq: int) -> list[dict[str, Any]]:
        entry = next(one for one in entries_in(daemon.state) if one["seq"] == seq)
        assert entry["type"] in ("run.accepted", "exec.accepted")
        executables: list[dict[str, Any]] = entry["data"]["executables"]
        return executables

    return at


@pytest.fixture
def own() -> Iterator[Path]:
    """A directory of the caller's."""
    base = Path(tempfile.mkdtemp(prefix="immured-pinning-"))
    base.chmod(0o755)
    found = base / "own"
    found.mkdir()
    os.chown(found, CALLER, CALLER)
    yield found
    shutil.rmtree(base)


@pytest.fixture(scope="package")
def caller_key(client: Client) -> Iterator[Path]:
    """A key of the caller's own, let in by the admin."""
    directory = Path(tempfile.mkdtemp(prefix="immured-pinning-key-"))
    directory.chmod(0o755)
    key = PrivateKey.generate()
    path = put(directory / "key.pem", key.to_pem(), 0o600)
    client.key_add("pinning-caller", key.public.to_pem(), role="runner", uids=[CALLER])
    yield path
    shutil.rmtree(directory)


@pytest.fixture
def as_caller(daemon: ThrowawayDaemon, caller_key: Path) -> Callable[[Callable[[Client], Any]], Any]:
    """Calls with a connection of the caller's."""

    def work(act: Callable[[Client], Any]) -> Any:
        def whole() -> Any:
            with daemon.client(caller_key) as connected:
                return act(connected)

        return as_user(CALLER, whole)

    return work
