"""A live daemon whose ledger is sealed and let go of: the rest verifies, what counts is known, copies have it all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from immured.client.elevation import Sessions
from immured.client.throwaway import ThrowawayDaemon
from immured.ledger.disk import is_append_only
from immured.ledger.keys import load_vkeys
from immured.ledger.segments import Files
from immured.ledger.verify import Report, verify_file
from tests.patience import PATIENCE_S, until
from tests.preflight.places import USER

pytestmark = pytest.mark.needs_root


class Stage:
    """A daemon that seals its file each second, and keeps two seconds of what its copy has."""

    def __init__(self, place: Path, daemon: ThrowawayDaemon) -> None:
        self.daemon = daemon
        self.audit = place / "audit"
        self.audit.mkdir()
        os.chown(self.audit, USER, USER)
        self.configure('segment_age = "1s"\nretain = "2s"')

    def configure(self, ledger: str) -> None:
        self.daemon.state.joinpath("config.toml").write_text(
            f'[broker]\nuser = "{USER}"\n[ledger]\ncheckpoint_s = 1\n{ledger}\n[audit]\nexports = ["{self.audit}"]\n'
        )

    def status(self) -> dict[str, Any]:
        with self.daemon.client() as client:
            found: Any = client.status()["ledger"]
        return dict(found)

    def run(self) -> None:
        with self.daemon.client() as client:
            assert client.run(["/bin/true"]).exit_code == 0

    def until(self, so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Runs, one after the other, until the ledger stands so."""
        deadline = time.monotonic() + PATIENCE_S
        while not so(status := self.status()):
            assert time.monotonic() < deadline, status
            self.run()
            time.sleep(0.2)
        return status

    def verified(self, folder: Path) -> Report:
        keys = load_vkeys(self.daemon.state / "keys/ledger.vkey")
        return verify_file(folder, folder / "checkpoints", keys)


def append_only(ledger: Path) -> dict[str, bool]:
    """Of each sealed file."""
    found = {}
    for path in ledger.glob("0*.jsonl"):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:  # it may be let go of meanwhile
            found[path.name] = is_append_only(file.fileno())
    return found


@pytest.fixture
def stage() -> Iterator[Stage]:
    place = Path(tempfile.mkdtemp(prefix="segments-"))
    place.chmod(0o755)
    try:
        stage = Stage(place, daemon := ThrowawayDaemon())
        with daemon:
            yield stage
    finally:
        shutil.rmtree(place)


def test_what_is_let_go_of_is_neither_missed_nor_forgotten(stage: Stage) -> None:
    with stage.daemon.client() as client:
        session = Sessions(client).open(note="before all")
    begun = stage.status()["entries"]
    ledger = stage.daemon.state / "ledger"

    def gone_on(_: object) -> bool:
        """Its beginning was let go of, and another file sealed since."""
        with Files.at(ledger) as files:
            return files.first > begun and len(files.parts) > 1

    stage.until(gone_on)
    for end in (stage.daemon.stop, stage.daemon.kill):
        end()
        if end == stage.daemon.kill:
            ledger.joinpath("resume").unlink(missing_ok=True)  # everything is read, and what was carried on
        stage.daemon.start()
        with stage.daemon.client() as client:
            assert Sessions(client).show(session.id).note == "before all"
        stage.run()
    # What is sealed is append-only from the next start on, but what is older than it keeps, which went.
    stage.daemon.stop()
    stage.configure('segment_age = "1s"\nretain = "1h"')
    stage.daemon.start()
    sealed = min(ledger.glob("0*.jsonl"))
    flags = append_only(ledger)
    assert flags[sealed.name] or "append_only" in stage.status()
    if flags[sealed.name]:
        with pytest.raises(PermissionError):
            sealed.unlink()
        with pytest.raises(PermissionError):
            sealed.write_bytes(b"x")
    stage.daemon.stop()
    stage.configure('segment_age = "1s"\nretain = "1s"')
    time.sleep(1.5)
    stage.daemon.start()
    assert not append_only(ledger).get(sealed.name)
    stage.until(lambda _: not sealed.exists())
    stage.daemon.stop()
    stage.configure('segment_age = "1s"\nretain = "1h"')  # from here on what is run is kept to be looked at
    stage.daemon.start()
    stage.run()
    said = ThrowawayDaemon.immure("ledger", "verify", "--state", str(stage.daemon.state))
    assert "whole" in said.stdout
    shown = ThrowawayDaemon.immure("ledger", "tail", "--state", str(stage.daemon.state), "-n", "60")
    assert "run.finished" in shown.stdout
    stage.daemon.stop()
    report = stage.verified(ledger)
    assert report.whole, report
    assert report.entries == report.covered
    copy = stage.audit / report.origin.removeprefix("immured/")
    of_copy = stage.verified(copy)
    assert of_copy.whole, of_copy
    with Files.at(copy) as whole, Files.at(ledger) as kept:
        assert (whole.start, whole.first, whole.size()) == (0, 0, kept.size())
        assert whole.read(kept.start, 1 << 24) == kept.read(kept.start, 1 << 24)
    stage.daemon.start()


def test_what_no_copy_has_stays(stage: Stage) -> None:
    stage.audit.chmod(0o777)  # a place that others may write to is no copy's
    stage.daemon.stop()
    stage.daemon.start()
    status = stage.until(lambda status: "retention" in status)
    assert "in every copy" in status["retention"]
    assert status["first"] == 0
    stage.run()


def test_nothing_is_sealed_or_let_go_of_unasked(stage: Stage) -> None:
    stage.daemon.stop()
    before = stage.daemon.state / "ledger"
    stage.configure("")
    stage.daemon.start()
    segments = stage.status()["segments"]
    stage.run()
    time.sleep(2.5)
    stage.run()
    assert stage.status()["segments"] == segments
    assert before.joinpath("current.jsonl").exists()


def test_whoever_made_a_throw_away_state_can_remove_it() -> None:
    place = Path(tempfile.mkdtemp(prefix="segments-"))
    place.chmod(0o711)
    ThrowawayDaemon.immure("init", "--state", str(place / "state"))
    (place / "state/config.toml").write_text('[ledger]\nsegment_age = "1s"\n')
    for _ in range(2):
        with ThrowawayDaemon(state=place / "state") as daemon, daemon.client() as client:
            assert client.run(["/bin/true"]).exit_code == 0
            until(lambda: list((place / "state/ledger").glob("0*.jsonl")))
    shutil.rmtree(place)
