"""One real daemon for the folder, and a caller of its own with a directory that a run may write."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from immured import Client, RunResult
from immured.client.throwaway import ThrowawayDaemon
from immured.wire.keys import PrivateKey
from tests.daemon import client, daemon
from tests.walls.acting import as_user

__all__ = ["client", "daemon"]

CALLER = 1000

RunAsCaller = Callable[..., RunResult]


@pytest.fixture(scope="module")
def project() -> Iterator[Path]:
    """A directory of the caller's, in a place that everybody can reach."""
    base = Path(tempfile.mkdtemp(prefix="immured-project-"))
    base.chmod(0o755)
    own = base / "own"
    own.mkdir(mode=0o700)
    os.chown(own, CALLER, CALLER)
    yield own
    shutil.rmtree(base)


@pytest.fixture(scope="module")
def caller_key(client: Client, project: Path) -> Path:
    """A key of the caller's, let in by the admin: one a module, for the daemon is the folder's."""
    key = PrivateKey.generate()
    path = project / "key.pem"
    path.write_bytes(key.to_pem())
    path.chmod(0o600)
    os.chown(path, CALLER, CALLER)
    client.key_add(f"caller-{secrets.token_hex(4)}", key.public.to_pem(), role="runner", uids=[CALLER])
    return path


@pytest.fixture
def in_project(daemon: ThrowawayDaemon, caller_key: Path, project: Path) -> RunAsCaller:
    """Runs a shell script as the caller, in `project`, which is writable and everything else of the default."""

    def run(script: str, **more: Any) -> RunResult:
        manifest = {"schema": 1, "filesystem": {"write": [str(project)]}}

        def work() -> RunResult:
            with daemon.client(caller_key) as connected:
                argv = ["/bin/bash", "-euo", "pipefail", "-c", script]
                return connected.run(argv, manifest=manifest, cwd=str(project), **more)

        result: RunResult = as_user(CALLER, work)
        return result

    return run
