"""A live daemon that starts again: on what it saved of its ledger, on what it may not believe, and on a lesser disk."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from immured.client.errors import Refusal
from immured.client.sync import Client
from immured.client.throwaway import ThrowawayDaemon
from immured.ledger import Ledger
from immured.ledger.keys import load_vkeys
from immured.ledger.resume import Resume
from immured.ledger.verify import Report, verify_file
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.needs_root


@pytest.fixture
def state() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="immured-starts-"))
    place.chmod(0o711)
    try:
        made = place / "state"
        ThrowawayDaemon.immure("init", "--state", str(made))
        yield made
    finally:
        shutil.rmtree(place)


def ledger(client: Client) -> dict[str, Any]:
    """What `status` says of it."""
    found: Any = client.status()["ledger"]
    return dict(found)


def resume(state: Path) -> Resume:
    return Resume.decode((state / "ledger" / "resume").read_bytes(), load_vkeys(state / "keys" / "ledger.vkey"))


def verified(state: Path) -> Report:
    files = state / "ledger"
    return verify_file(files, files / "checkpoints", load_vkeys(state / "keys" / "ledger.vkey"))


def test_what_a_daemon_saved_is_what_the_next_starts_on(state: Path) -> None:
    with ThrowawayDaemon(state=state) as daemon, daemon.client() as client:
        assert client.run(["/bin/true"]).exit_code == 0
        entries = ledger(client)["entries"]
    saved = resume(state)
    assert saved.closed
    assert saved.size == entries + 1 == verified(state).entries, "and the daemon's last word"
    assert len(saved.kept) > 0, "the nonces of now could be used again"
    with ThrowawayDaemon(state=state) as daemon:
        with daemon.client() as client:
            assert client.run(["/bin/true"]).exit_code == 0
        assert "passed over" not in daemon.log.read_text()
    assert resume(state).size > saved.size
    assert verified(state).whole


def test_one_that_was_killed_is_followed_by_one_that_starts_on_the_last_that_was_saved(state: Path) -> None:
    (state / "config.toml").write_text("[ledger]\ncheckpoint_s = 1\n")
    with ThrowawayDaemon(state=state) as daemon, daemon.client() as client:
        assert client.run(["/bin/true"]).exit_code == 0
    with ThrowawayDaemon(state=state) as daemon:
        daemon.kill()
    with ThrowawayDaemon(state=state) as daemon:
        with daemon.client() as client:
            assert client.run(["/bin/true"]).exit_code == 0
        assert "passed over" not in daemon.log.read_text()
    assert verified(state).whole


def test_one_that_is_damaged_is_passed_over_and_the_log_says_so(state: Path) -> None:
    with ThrowawayDaemon(state=state):
        pass
    path = state / "ledger" / "resume"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with ThrowawayDaemon(state=state) as daemon:
        with daemon.client() as client:
            assert client.run(["/bin/true"]).exit_code == 0
        assert "resume is passed over, and every entry read" in daemon.log.read_text()
    assert resume(state).closed, "it was made anew"


def test_damage_in_what_a_start_did_not_read_is_found_beside_the_work(state: Path) -> None:
    with Ledger.open(state, durability="none") as large:
        for _ in range(700):
            large.entry("note.made", {"uid": 0}, {"text": [f"{number:1000d}" for number in range(50)]})
    with ThrowawayDaemon(state=state):
        pass  # it reads all of it, and saves what it learnt
    path = state / "ledger" / "current.jsonl"
    assert path.stat().st_size > 32 << 20
    with path.open("r+b") as file:
        file.seek(1_000_000)
        file.write(bytes([file.read(1)[0] ^ 1]))
    with ThrowawayDaemon(state=state) as daemon, daemon.client() as client:
        deadline = time.monotonic() + PATIENCE_S
        while not (failure := ledger(client)["failure"]):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert "current.jsonl: line " in failure
        with pytest.raises(Refusal, match=r"current\.jsonl: line ") as caught:
            client.run(["/bin/true"])
        assert caught.value.code == "ledger_damaged"
        assert "ledger_damaged: " in daemon.log.read_text()


def test_a_ledger_that_waits_for_no_disk_says_so_wherever_it_is_asked(state: Path) -> None:
    (state / "config.toml").write_text('[ledger]\ndurability = "none"\n')
    with ThrowawayDaemon(state=state) as daemon, daemon.client() as client:
        assert client.run(["/bin/true"]).exit_code == 0
        assert ledger(client)["durability"] == "none"
    assert verified(state).unsynced[0][0] == 1
    (state / "config.toml").write_text("")
    with ThrowawayDaemon(state=state) as daemon, daemon.client() as client:
        assert "durability" not in ledger(client)
    assert len(verified(state).unsynced) == 1
    assert verified(state).unsynced[0][1] < verified(state).entries - 1
