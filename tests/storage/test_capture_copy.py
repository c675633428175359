"""The changes of a captured directory are copied into a fork's layer by a child that can be killed, and not for ever.

Who is asked by fanotify whether a file may be opened, and does not answer, stops the copy for as long as one likes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from immured import Client
from immured.client.snapshots import Snapshots
from immured.client.throwaway import ThrowawayDaemon
from immured.errors import ImmuredError
from tests.storage.conftest import PEER, as_peer

pytestmark = pytest.mark.needs_root

FAN_CLASS_CONTENT, FAN_CLOEXEC, FAN_MARK_ADD, FAN_OPEN_PERM, AT_FDCWD = 4, 1, 1, 0x10000, -100
BOUND = 20.0  # after which the file may be opened, so that nothing hangs here


@contextlib.contextmanager
def unanswered(path: Path) -> Iterator[int]:
    """Opening `path` waits, for at most BOUND seconds. The descriptor can be read once somebody does."""
    libc = ctypes.CDLL(None, use_errno=True)
    group = libc.fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC, os.O_RDONLY)
    assert group >= 0, os.strerror(ctypes.get_errno())
    mask, name = ctypes.c_uint64(FAN_OPEN_PERM), os.fsencode(path)
    assert libc.fanotify_mark(group, FAN_MARK_ADD, mask, AT_FDCWD, name) == 0, os.strerror(ctypes.get_errno())
    closing = threading.Timer(BOUND, os.close, (group,))
    closing.start()
    try:
        yield group
    finally:
        closing.cancel()
        closing.join()
        with contextlib.suppress(OSError):
            os.close(group)


@contextlib.contextmanager
def saved(timeout_ms: int) -> Iterator[tuple[ThrowawayDaemon, Client, dict[str, Any], Path]]:
    """A daemon of this deadline, whose snapshot "changes" holds a changed file of a captured directory."""
    project = Path(tempfile.mkdtemp(prefix="immured-project-"))
    project.chmod(0o755)
    os.chown(project, PEER, PEER)
    manifest = {"schema": 1, "filesystem": {"capture": [{"path": str(project), "target": "/project"}]}}
    try:
        with ThrowawayDaemon() as own:
            own.stop()
            (own.state / "config.toml").write_text(f"[launcher]\nopen_timeout_ms = {timeout_ms}\n")
            own.start()
            with as_peer(own) as peer:
                with peer.sandbox(manifest=manifest) as sandbox:
                    assert sandbox.exec(["/bin/sh", "-c", "echo new > /project/file"]).exit_code == 0
                    sandbox.snapshot("changes")
                places = own.state / "snapshots" / "default" / "changes"
                [file] = [place / "file" for place in places.iterdir() if (place / "file").is_file()]
                yield own, peer, manifest, file
    finally:
        shutil.rmtree(project)


def test_a_copy_has_the_deadline_of_an_opening() -> None:
    with saved(timeout_ms=5000) as (_, peer, manifest, file):
        with unanswered(file), pytest.raises(ImmuredError) as late:
            peer.sandbox(manifest=manifest, snapshot="changes")
        assert (late.value.code, "/project was not copied within 5000 ms" in late.value.message) == (
            "path_timeout",
            True,
        )
        with peer.sandbox(manifest=manifest, snapshot="changes") as fork:
            assert fork.exec(["/bin/cat", "/project/file"]).stdout == b"new\n"
        Snapshots(peer).remove("changes")  # the fork that failed holds it no more


def test_a_kill_is_heard_while_it_copies() -> None:
    failures: list[ImmuredError] = []
    with saved(timeout_ms=600_000) as (own, peer, manifest, file), unanswered(file) as group:
        begun = time.monotonic()

        def create() -> None:
            try:
                peer.sandbox(manifest=manifest, snapshot="changes", name="copying")
            except ImmuredError as error:
                failures.append(error)

        creating = threading.Thread(target=create)
        creating.start()
        os.read(group, 24)  # the copy has come to the file
        with own.client() as admin:
            admin.open("copying").kill()
        creating.join()
        assert failures
        assert time.monotonic() - begun < BOUND
