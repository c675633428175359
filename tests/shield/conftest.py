"""One real daemon for the folder, wardens alone for what is done to PID 1, and a place that may not be written."""

from __future__ import annotations

import os
import shutil
import subprocess
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
from tests.warden.conftest import cell, cells, controllers, harness, subtree

__all__ = ["cell", "cells", "client", "controllers", "daemon", "harness", "subtree"]

HERE = Path(__file__).parent
CALLER = 1000


@pytest.fixture
def outside() -> Iterator[Path]:
    """A directory that everybody may write to, as far as permissions go: what refuses is the mount."""
    path = Path(tempfile.mkdtemp(prefix="immured-shield-"))
    try:
        (path / "file").write_text("kept")
        (path / "directory").mkdir()
        (path / "empty").mkdir()
        (path / "link").symlink_to("file")
        for one in (path, path / "directory", path / "empty"):
            one.chmod(0o777)
        (path / "file").chmod(0o666)
        yield path
    finally:
        shutil.rmtree(path)


@pytest.fixture
def project() -> Iterator[Path]:
    """A caller's own directory, with a repository's and a secret one in it."""
    path = Path(tempfile.mkdtemp(prefix="immured-shield-project-"))
    try:
        for name in (".git", "secret", "other"):
            (path / name).mkdir()
        (path / ".git" / "config").write_text("kept")
        for one in (path, *path.rglob("*")):
            os.chown(one, CALLER, CALLER)
        yield path
    finally:
        shutil.rmtree(path)


@pytest.fixture(scope="package")
def run_as_caller(daemon: ThrowawayDaemon, client: Client) -> Iterator[Callable[..., RunResult]]:
    """`client.run` by a user who is not root, and may write to what is theirs."""
    place = Path(tempfile.mkdtemp(prefix="immured-shield-caller-"))
    key = PrivateKey.generate()
    path = place / "key.pem"
    path.write_bytes(key.to_pem())
    path.chmod(0o600)
    for one in (place, path):
        os.chown(one, CALLER, CALLER)
    client.key_add("caller", key.public.to_pem(), role="runner", uids=[CALLER])

    def run(argv: list[str], **more: Any) -> RunResult:
        def work() -> RunResult:
            with daemon.client(path) as connected:
                return connected.run(argv, **more)

        result: RunResult = as_user(CALLER, work)
        return result

    yield run
    shutil.rmtree(place)


@pytest.fixture(scope="package")
def programs() -> Iterator[Path]:
    """The folder's C programs, static, in a directory that everybody may read."""
    place = Path(tempfile.mkdtemp(prefix="immured-shield-programs-"))
    place.chmod(0o755)
    for source in HERE.glob("*.c"):
        command = ["gcc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-static", "-pthread"]
        subprocess.run([*command, source, "-o", place / source.stem], check=True)
        os.chmod(place / source.stem, 0o755)
    yield place
    shutil.rmtree(place)
