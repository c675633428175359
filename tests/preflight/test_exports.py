"""Copies of a live daemon's ledger, and all that keeps one from being made: caused, found, said once, and over."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from immured import Client
from immured.client.preflight import Preflight, PreflightRow
from immured.client.throwaway import ThrowawayDaemon
from immured.wire.keys import PrivateKey
from tests.descriptors import descriptors
from tests.entries import lines_in
from tests.patience import PATIENCE_S, until
from tests.preflight.places import USER, configure, exporters, full, memory, mount_memory, unmount
from tests.walls.unanswering import UnansweringMount

pytestmark = pytest.mark.needs_root
SILENT = re.compile(r" has not answered for (\d+) s")


class Stage:
    """A daemon with four copies: `whole` on a disk; `small` and `away` on file systems of their own; `hung`, over which
    a test mounts what never answers."""

    def __init__(self, place: Path, daemon: ThrowawayDaemon) -> None:
        self.place, self.daemon = place, daemon
        self.whole, self.small, self.away, self.hung = (place / one for one in ("whole", "small", "away", "hung"))

    @property
    def all(self) -> tuple[Path, ...]:
        return (self.whole, self.small, self.away, self.hung)

    @property
    def log(self) -> bytes:
        return (self.daemon.state / "ledger/current.jsonl").read_bytes()

    def folder(self, copy: Path) -> Path:
        return copy / str(self.client_status()["origin"]).removeprefix("immured/")

    def client_status(self) -> dict[str, Any]:
        with self.daemon.client() as client:
            ledger: Any = client.status()["ledger"]
        return dict(ledger)

    def standing(self, copy: Path) -> dict[str, Any]:
        shown = self.client_status()["exports"]
        return next(dict(one) for one in shown if one["destination"] == str(copy))

    def until_copied(self, copy: Path) -> None:
        """Until it holds every entry that there is now, and the checkpoint over them."""
        entries = self.client_status()["entries"]
        until(lambda: self.standing(copy)["entries"] >= entries)

    def row(self, copy: Path, seen: Preflight | None = None) -> PreflightRow:
        with self.daemon.client() as client:
            seen = seen or client.preflight()
        return next(row for row in seen.of("audit") if str(copy) in row.words)

    def told(self, copy: Path, since: int) -> list[str]:
        """What the ledger says of that copy from an entry on: types, and codes where there are."""
        lines = [json.loads(line) for line in lines_in(self.log)[since:]]
        return [
            line["type"] + (f" {line['data']['code']}" if "code" in line["data"] else "")
            for line in lines
            if line["type"].startswith("export.") and line["data"]["destination"] == str(copy)
        ]

    def size(self) -> int:
        return len(lines_in(self.log))


def until_gone(processes: list[int]) -> None:
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes))


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    place = Path(tempfile.mkdtemp(prefix="copies-"))  # pytest's own are nobody else's to pass
    place.chmod(0o755)
    stage = Stage(place, daemon := ThrowawayDaemon())
    for one in stage.all:
        one.mkdir()
    os.chown(stage.whole, USER, USER)
    with memory(stage.small, size="1m"), memory(stage.hung, size="1m"):
        mount_memory(stage.away, size="1m")
        try:
            configure(daemon.state, *stage.all)
            with daemon:
                yield stage
        finally:
            unmount(stage.away)
    shutil.rmtree(place)


@pytest.fixture
def client(stage: Stage) -> Iterator[Client]:
    with stage.daemon.client() as client:
        yield client


def test_every_copy_is_the_ledger(stage: Stage, client: Client) -> None:
    assert client.run(["/bin/true"]).exit_code == 0
    for copy in stage.all:
        stage.until_copied(copy)
    for copy in stage.all:
        folder = stage.folder(copy)
        held = (folder / "current.jsonl").read_bytes()
        assert stage.log.startswith(held)
        assert held.endswith(b"\n")
        places = {"--file": folder / "current.jsonl", "--checkpoints": folder / "checkpoints"}
        places["--vkey"] = stage.daemon.state / "keys/ledger.vkey"
        words = [str(word) for pair in places.items() for word in pair]
        verified = stage.daemon.immure("ledger", "verify", *words, "--json")
        report = json.loads(verified.stdout)
        assert report["entries"] == report["covered"] == held.count(b"\n")


def test_preflight_writes_to_each_and_says_what_it_holds(stage: Stage, client: Client) -> None:
    seen = client.preflight()
    for copy in stage.all:
        assert stage.row(copy, seen).verdict == "pass"
        assert not list(stage.folder(copy).glob(".probe*"))
    told = stage.told(stage.whole, 0)
    assert (told[0], told.count("export.began")) == ("export.began", 1)


def test_a_full_destination_is_found_and_said_once_and_runs_go_on(stage: Stage, client: Client) -> None:
    stage.until_copied(stage.small)
    since = stage.size()
    with full(stage.small):
        row = stage.row(stage.small)
        assert (row.verdict, row.code) == ("fail", "export_unreachable")
        assert row.words == f"{stage.small}: No space left on device"
        assert row.remedy == "free space there; what is missing is copied then"
        assert client.run(["/bin/true"]).exit_code == 0
        assert stage.row(stage.small).verdict == "fail"
        assert stage.row(stage.whole).verdict == "pass"
    assert stage.row(stage.small).verdict == "pass"
    stage.until_copied(stage.small)
    assert stage.told(stage.small, since) == ["export.failed export_unreachable", "export.recovered"]


def test_what_is_not_mounted_is_missing_and_nothing_is_begun_beneath(stage: Stage, client: Client) -> None:
    stage.until_copied(stage.away)
    since, folder = stage.size(), stage.folder(stage.away).name
    unmount(stage.away)
    os.chown(stage.away, USER, USER)  # as an operator leaves it who does not think of this
    try:
        row = stage.row(stage.away)
        assert (row.verdict, row.code) == ("fail", "export_missing")
        assert "mount what was there" in row.remedy
        assert client.run(["/bin/true"]).exit_code == 0
        assert os.listdir(stage.away) == []
    finally:
        mount_memory(stage.away, size="1m")
    assert stage.row(stage.away).code == "export_missing"  # another disk is not what was there
    (stage.away / folder).mkdir(mode=0o700)
    os.chown(stage.away / folder, USER, USER)
    assert stage.row(stage.away).verdict == "pass"
    stage.until_copied(stage.away)
    assert stage.log.startswith((stage.away / folder / "current.jsonl").read_bytes())
    assert stage.told(stage.away, since) == ["export.failed export_missing", "export.began", "export.recovered"]


def test_a_destination_that_hangs_holds_nobody_up(stage: Stage, client: Client) -> None:
    stage.until_copied(stage.hung)
    since = stage.size()
    with UnansweringMount(stage.hung, uid=USER):
        assert client.run(["/bin/true"]).exit_code == 0
        stage.until_copied(stage.whole)  # so that a copy to the other was just begun too
        began = time.monotonic()
        seen = client.preflight()
        took = time.monotonic() - began
        row = stage.row(stage.hung, seen)
        assert (row.verdict, row.code) == ("fail", "export_silent")
        silent = SILENT.match(row.words.removeprefix(str(stage.hung)))
        assert silent is not None, row.words
        assert int(silent[1]) >= 5
        assert took < PATIENCE_S
        assert stage.row(stage.whole, seen).verdict == "pass"
        for _ in range(3):
            assert client.run(["/bin/true"]).exit_code == 0
        stage.until_copied(stage.whole)
    until(lambda: stage.row(stage.hung).verdict == "pass")
    stage.until_copied(stage.hung)
    assert stage.told(stage.hung, since) == ["export.failed export_silent", "export.recovered"]


def test_a_copy_that_somebody_changed_is_named_and_left(stage: Stage, client: Client) -> None:
    stage.until_copied(stage.whole)
    since, log = stage.size(), stage.folder(stage.whole) / "current.jsonl"
    held = log.read_bytes()
    log.write_bytes(held.replace(b'"ledger.created"', b'"ledger.treated"', 1))
    try:
        assert client.run(["/bin/true"]).exit_code == 0
        until(lambda: stage.standing(stage.whole).get("code") == "export_differs")
        row = stage.row(stage.whole)
        assert (row.verdict, row.code) == ("fail", "export_differs")
        assert b"ledger.treated" in log.read_bytes()
        assert log.stat().st_size == len(held)
    finally:
        log.write_bytes(held)
    assert stage.row(stage.whole).verdict == "pass"
    stage.until_copied(stage.whole)
    assert stage.told(stage.whole, since) == ["export.failed export_differs", "export.recovered"]


@pytest.mark.parametrize(
    ("mode", "owner", "code", "words"),
    [
        (0o777, USER, "export_insecure", "may be written by others"),
        (0o700, 0, "export_unreachable", "Permission denied"),
    ],
    ids=["everybody's", "root's alone"],
)
def test_a_directory_that_is_not_as_it_has_to_be(stage: Stage, mode: int, owner: int, code: str, words: str) -> None:
    stage.until_copied(stage.whole)
    os.chown(stage.whole, owner, owner)
    stage.whole.chmod(mode)
    try:
        row = stage.row(stage.whole)
        assert (row.verdict, row.code, words in row.words) == ("fail", code, True)
        assert row.remedy
    finally:
        stage.whole.chmod(0o755)
        os.chown(stage.whole, USER, USER)
    assert stage.row(stage.whole).verdict == "pass"


def test_who_does_not_see_the_host_is_told_a_number_and_no_path(stage: Stage, client: Client, tmp_path: Path) -> None:
    key = PrivateKey.generate()
    (tmp_path / "key.pem").write_bytes(key.to_pem())
    client.key_add("reader", key.public.to_pem(), role="runner")
    with full(stage.small), stage.daemon.client(tmp_path / "key.pem") as worker:
        seen = worker.preflight()
        assert "exports" not in dict(worker.status()["ledger"])  # type: ignore[call-overload]
    said = [(row.verdict, row.words, row.remedy) for row in seen.of("audit")]
    assert ("fail", "export 2 of 4 is not what it should be (export_unreachable)", "ask the operator") in said
    assert str(stage.place) not in repr(seen)
    assert stage.row(stage.small).verdict == "pass"


def until_it_holds(pid: int, files: set[str]) -> None:
    """Until the process has these open at most, beside its first three and one socket: while it copies it has more."""

    def so() -> bool:
        found = [one.split(" -> ") for one in descriptors(pid)]
        others = [what for number, what in found if int(number) > 2 and what not in files]
        return len(others) == 1 and others[0].startswith("socket:")

    until(so)


def test_what_copies_has_no_rights_and_holds_nothing_of_the_daemon_s(stage: Stage) -> None:
    found = exporters(stage.daemon)
    assert len(found) == len(stage.all)
    for pid in found:
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
        )
        assert status["Uid"].split() == [str(USER)] * 4
        assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        ledger = str((stage.daemon.state / "ledger").resolve())
        until_it_holds(pid, {ledger, f"{ledger}/current.jsonl"})  # for reading, as the domain has it


def test_its_process_gone_is_said_and_a_restart_brings_it_back(stage: Stage) -> None:
    stage.until_copied(stage.whole)
    since = stage.size()
    for pid in exporters(stage.daemon):
        os.kill(pid, signal.SIGKILL)
    row = stage.row(stage.whole)
    assert (row.verdict, row.code) == ("fail", "export_ended")
    with stage.daemon.client() as client:
        assert client.run(["/bin/true"]).exit_code == 0
    assert stage.daemon.stop() == 0
    stage.daemon.start()
    stage.until_copied(stage.whole)
    assert stage.told(stage.whole, since) == ["export.failed export_ended", "export.recovered"]


def test_the_last_words_are_copied_too(stage: Stage) -> None:
    for copy in stage.all:
        stage.until_copied(copy)
    folders = [stage.folder(copy) for copy in stage.all]
    copying = exporters(stage.daemon)
    assert stage.daemon.stop() == 0
    try:
        assert b"daemon.stopped" in stage.log.splitlines()[-1]
        for folder in folders:
            assert (folder / "current.jsonl").read_bytes() == stage.log
        until_gone(copying)
    finally:
        stage.daemon.start()


def test_a_destination_that_hangs_keeps_no_daemon_from_stopping_nor_the_next_from_starting(stage: Stage) -> None:
    """A thread in there would keep the process, and the locks that it holds, until the file system answers."""
    stage.until_copied(stage.hung)
    with UnansweringMount(stage.hung, uid=USER):
        assert stage.row(stage.hung).code == "export_silent"
        began = time.monotonic()
        assert stage.daemon.stop() == 0
        stage.daemon.start()
        assert time.monotonic() - began < PATIENCE_S
        with stage.daemon.client() as client:
            assert client.run(["/bin/true"]).exit_code == 0
        stage.until_copied(stage.whole)
    until(lambda: stage.row(stage.hung).verdict == "pass")


def test_a_daemon_that_is_killed_leaves_no_process_and_its_successor_goes_on(stage: Stage) -> None:
    copying = exporters(stage.daemon)
    stage.daemon.kill()
    until_gone(copying)
    stage.daemon.start()
    for copy in stage.all:
        stage.until_copied(copy)
        assert stage.log.startswith((stage.folder(copy) / "current.jsonl").read_bytes())


def test_an_older_ledger_put_back_is_found_by_its_copy(stage: Stage, tmp_path: Path) -> None:
    """What no checkpoint beside it shows: the whole state directory is from before."""
    assert stage.daemon.stop() == 0
    shutil.copytree(stage.daemon.state, tmp_path / "state", symlinks=True, ignore=shutil.ignore_patterns("*.sock"))
    stage.daemon.start()
    for copy in stage.all:
        stage.until_copied(copy)
    assert stage.daemon.stop() == 0
    whole = stage.daemon.state.rename(tmp_path / "whole")
    shutil.copytree(tmp_path / "state", stage.daemon.state, symlinks=True)
    for root, folders, files in os.walk(tmp_path / "state"):
        for name in (*folders, *files, "."):
            facts = os.lstat(Path(root) / name)
            there = stage.daemon.state / Path(root).relative_to(tmp_path / "state") / name
            os.chown(there, facts.st_uid, facts.st_gid, follow_symlinks=False)
    try:
        stage.daemon.start()
        row = stage.row(stage.whole)
        assert (row.verdict, row.code in ("export_ahead", "export_differs")) == ("fail", True)
    finally:
        stage.daemon.stop()
        shutil.rmtree(stage.daemon.state)
        whole.rename(stage.daemon.state)
        stage.daemon.start()
