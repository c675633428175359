"""The changes of a captured directory are copied into a fork's layer by a child that can be killed, and not for ever.

Who is asked by fanotify whether a file may be opened, and does not answer, stops the copy for as long as one likes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from immured import Client
from immured.client.snapshots import Snapshots
from immured.client.throwaway import ThrowawayDaemon
from immured.errors import ImmuredError
from tests.held import asked_before_opening
from tests.patience import PATIENCE_S
from tests.storage.conftest import PEER, as_peer

pytestmark = pytest.mark.needs_root

ENOUGH_MS = 15_000
"""For an opening that nobody holds up, on a busy host too."""


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
    with saved(timeout_ms=ENOUGH_MS) as (_, peer, manifest, file):
        with asked_before_opening(file), pytest.raises(ImmuredError) as late:
            peer.sandbox(manifest=manifest, snapshot="changes")
        assert (late.value.code, f"/project was not copied within {ENOUGH_MS} ms" in late.value.message) == (
            "path_timeout",
            True,
        )
        with peer.sandbox(manifest=manifest, snapshot="changes") as fork:
            assert fork.exec(["/bin/cat", "/project/file"]).stdout == b"new\n"
        Snapshots(peer).remove("changes")  # the fork that failed holds it no more


def test_a_kill_is_heard_while_it_copies() -> None:
    failures: list[ImmuredError] = []
    with saved(timeout_ms=600_000) as (own, peer, manifest, file), asked_before_opening(file) as asked:

        def create() -> None:
            try:
                peer.sandbox(manifest=manifest, snapshot="changes", name="copying")
            except ImmuredError as error:
                failures.append(error)

        creating = threading.Thread(target=create)
        creating.start()
        assert asked.who(over=lambda: not creating.is_alive())  # the copy has come to the file, and goes no further
        with own.client() as admin:
            admin.open("copying").kill()
        creating.join(PATIENCE_S)
        assert failures
