"""A state directory whose file system has no idmapped mounts: what is kept there is refused, not shown as nobody's."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from immured.client.snapshots import Snapshots
from immured.client.throwaway import ThrowawayDaemon
from immured.errors import ImmuredError
from tests.patience import PATIENCE_S
from tests.storage.forks import make_image

pytestmark = pytest.mark.needs_root


@contextlib.contextmanager
def unmapped(collection: str) -> Iterator[ThrowawayDaemon]:
    """A daemon with that directory of its state on a ramfs."""
    with ThrowawayDaemon() as own:
        own.stop()
        place = own.state / collection
        facts = place.stat()
        subprocess.run(["mount", "-t", "ramfs", "ramfs", place], check=True, timeout=PATIENCE_S)
        try:
            os.chown(place, facts.st_uid, facts.st_gid)
            place.chmod(facts.st_mode & 0o777)
            own.start()
            yield own
            own.stop()
        finally:
            subprocess.run(["umount", "-l", place], check=True, timeout=PATIENCE_S)


def test_a_snapshot_there_is_not_begun_with() -> None:
    manifest = {"schema": 1, "filesystem": {"tmpfs": ["/work"]}}
    with unmapped("snapshots") as own, own.client() as client:
        with client.sandbox(manifest=manifest) as sandbox:
            assert sandbox.exec(["/bin/sh", "-c", "umask 77; echo mine > /work/file"]).exit_code == 0
            sandbox.snapshot("unmapped")
        with pytest.raises(ImmuredError) as refused:
            client.sandbox(manifest=manifest, snapshot="unmapped")
        assert refused.value.code == "idmap_unsupported"
        Snapshots(client).remove("unmapped")


def test_an_image_there_is_no_root(tmp_path: Path) -> None:
    with unmapped("images") as own, own.client() as client:
        image = make_image(own, tmp_path, {"home": None})
        manifest = {"schema": 1, "filesystem": {"root": f"image:{image}"}}
        result = client.run(["/bin/tool", "tree", "/home"], manifest=manifest, cwd="/")
        assert result.cause == "setup_failed", result
        assert "idmap_unsupported" in str(result.failure)
