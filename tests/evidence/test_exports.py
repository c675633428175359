"""A live daemon that copies its ledger to S3 and as tiles: what is there, what is said, and what nobody gets to see."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from immured.client.throwaway import ThrowawayDaemon
from immured.ledger.checkpoint import open_checkpoint
from immured.ledger.exports.tiles import lines_of, tile_path
from immured.ledger.keys import load_vkeys
from tests.entries import entries_in
from tests.ledger.s3 import KEY, SECRET, Server, credentials, far, s3_server
from tests.patience import PATIENCE_S
from tests.preflight.places import USER, exporters

pytestmark = pytest.mark.needs_root


class Stage:
    """A daemon with copies in S3 (locked lines, and tiles), tiles in a directory, and one whose credentials are not
    right."""

    def __init__(self, place: Path, daemon: ThrowawayDaemon, server: Server) -> None:
        self.place, self.daemon, self.server = place, daemon, server
        self.audit = place / "audit"
        self.audit.mkdir()
        os.chown(self.audit, USER, USER)
        server.make("locked", lock=True)
        server.make("tiles")
        secret = credentials(place)
        open_to_all = place / "open"
        open_to_all.write_text(secret.read_text())
        open_to_all.chmod(0o644)
        of_s3 = f'endpoint = "{server.endpoint}", credentials = "{secret}"'
        daemon.state.joinpath("config.toml").write_text(
            f"""
[broker]
user = "{USER}"

[ledger]
checkpoint_s = 1

[audit]
exports = [
  {{ to = "s3://locked/hosts", lock = "30d", {of_s3} }},
  {{ to = "s3://tiles", format = "tiles", {of_s3} }},
  {{ to = "{self.audit}", format = "tiles" }},
  {{ to = "s3://locked/other", endpoint = "{server.endpoint}", credentials = "{open_to_all}" }},
]
"""
        )

    @property
    def log(self) -> bytes:
        return (self.daemon.state / "ledger/current.jsonl").read_bytes()

    def status(self) -> dict[str, Any]:
        with self.daemon.client() as client:
            found: Any = client.status()["ledger"]
        return dict(found)

    @property
    def folder(self) -> str:
        return str(self.status()["origin"]).removeprefix("immured/")

    def standing(self, name: str) -> dict[str, Any]:
        return next(dict(one) for one in self.status()["exports"] if one["destination"] == name)

    def until(self, name: str, so: str = "") -> dict[str, Any]:
        """Until it holds what there is now; or until it fails with that code."""
        entries, deadline = self.status()["entries"], time.monotonic() + PATIENCE_S
        while True:
            standing = self.standing(name)
            if standing.get("code") == so if so else standing["entries"] >= entries:
                return standing
            assert time.monotonic() < deadline, standing
            time.sleep(0.1)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    place = Path(tempfile.mkdtemp(prefix="exports-"))  # pytest's own are nobody else's to pass
    place.chmod(0o755)
    with s3_server() as server:
        stage = Stage(place, daemon := ThrowawayDaemon(), server)
        with daemon:
            yield stage
    shutil.rmtree(place)


def test_the_pieces_in_s3_are_the_ledger_and_are_locked(stage: Stage) -> None:
    with stage.daemon.client() as client:
        assert client.run(["/bin/true"]).exit_code == 0
    stage.until("s3://locked/hosts")
    keys = stage.server.keys("locked", f"hosts/{stage.folder}/entries/")
    joined = b"".join(stage.server.get("locked", key) for key in keys)
    assert stage.log.startswith(joined)
    assert b"run.finished" in joined
    for key in keys:
        facts = stage.server.client.head_object(Bucket="locked", Key=key)
        assert (facts["ObjectLockMode"], facts["ObjectLockRetainUntilDate"] > far(days=29)) == ("COMPLIANCE", True)


def test_the_tiles_are_the_ledger_wherever_they_are(stage: Stage) -> None:
    stage.until("s3://tiles (tiles)")
    stage.until(f"{stage.audit} (tiles)")
    vkeys = load_vkeys(stage.daemon.state / "keys/ledger.vkey")

    def read(name: str) -> tuple[bytes, bytes]:
        return stage.server.get("tiles", f"{stage.folder}/{name}"), (stage.audit / stage.folder / name).read_bytes()

    for number, note in enumerate(read("checkpoint")):
        size = open_checkpoint(note, vkeys).size
        lines: list[bytes] = []
        for index in range((size + 255) // 256):
            lines += lines_of(read(tile_path("entries", index, min(256, size - 256 * index)))[number])
        assert stage.log.startswith(b"".join(line + b"\n" for line in lines))
        assert len(lines) == size


def test_what_signs_requests_is_nowhere_to_be_seen(stage: Stage) -> None:
    stage.until("s3://locked/hosts")
    with stage.daemon.client() as client:
        seen = json.dumps([row.words for row in client.preflight().of("audit")])
    for text in (stage.log.decode(), json.dumps(stage.status()), seen):
        assert SECRET not in text
        assert KEY not in text


def test_credentials_that_others_may_read_are_refused_and_said(stage: Stage) -> None:
    standing = stage.until("s3://locked/other", "bad_credentials")
    assert "others than its owner may read it" in standing["failure"]
    assert stage.server.keys("locked", "other/") == []
    with stage.daemon.client() as client:
        assert client.run(["/bin/true"]).exit_code == 0


def test_the_daemon_itself_carries_nothing_of_what_copies(stage: Stage) -> None:
    """Its own memory, unshared: what speaks to S3 takes more than this."""
    stage.until("s3://locked/hosts")

    def private_kb(pid: int) -> int:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))

    assert len(exporters(stage.daemon)) == 4
    assert private_kb(stage.daemon.pid) < 64 << 10


def test_preflight_tries_each(stage: Stage) -> None:
    for name in ("s3://locked/hosts", "s3://tiles (tiles)", f"{stage.audit} (tiles)"):
        stage.until(name)
    with stage.daemon.client() as client:
        rows = {row.words.partition(" takes")[0]: row.verdict for row in client.preflight().of("audit")}
    assert rows["s3://locked/hosts"] == rows["s3://tiles (tiles)"] == rows[f"{stage.audit} (tiles)"] == "pass"


def test_what_somebody_deleted_there_is_said_once(stage: Stage) -> None:
    stage.until("s3://tiles (tiles)")
    key = f"{stage.folder}/checkpoint"
    kept = stage.server.get("tiles", key)
    stage.server.delete("tiles", key)
    with stage.daemon.client() as client:
        assert client.run(["/bin/true"]).exit_code == 0
    stage.until("s3://tiles (tiles)", "export_missing")
    told = [one["data"] for one in entries_in(stage.daemon.state) if one["type"] == "export.failed"]
    assert [one["code"] for one in told if one["destination"] == "s3://tiles (tiles)"] == ["export_missing"]
    stage.server.put("tiles", key, kept)
