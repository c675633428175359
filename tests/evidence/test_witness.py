"""Real daemons and real witnesses: what is cosigned, what is noticed, and what nobody's own key can get past."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from immured.client.throwaway import ThrowawayDaemon
from immured.ledger.checkpoint import Checkpoint, Signer, Witnessed, file_name, open_witnessed
from immured.ledger.entry import leaf_hash
from immured.ledger.keys import load_private, load_vkeys
from immured.ledger.tree import Frontier
from tests.entries import entries_in
from tests.ledger.witness.process import Process, immure, serving
from tests.patience import until
from tests.preflight.places import USER, exporters

pytestmark = pytest.mark.needs_root


class Host:
    """A daemon whose checkpoints come a second after an entry, and the witnesses that it asks."""

    def __init__(self, witnesses: list[Process], state: Path | None = None) -> None:
        self.daemon = ThrowawayDaemon(state=state)
        self.witnesses = witnesses
        self.configure()

    def configure(self, *, keys: dict[int, str] | None = None) -> None:
        listed = ", ".join(
            f'{{ name = "w{number}", url = "{one.url}", key = "{(keys or {}).get(number, one.key.encode())}" }}'
            for number, one in enumerate(self.witnesses, 1)
        )
        text = f'[broker]\nuser = "{USER}"\n[ledger]\ncheckpoint_s = 1\n[audit]\nwitnesses = [{listed}]\n'
        self.state.joinpath("config.toml").write_text(text)

    @property
    def state(self) -> Path:
        return self.daemon.state

    @property
    def ledger(self) -> Path:
        return self.state / "ledger"

    def trusted(self, *witnesses: Process) -> None:
        for one in witnesses or self.witnesses:
            words = ("--state", str(one.state), str(self.state / "keys/ledger.vkey"))
            immure("ledger", "witness", "trust", *words)

    def standing(self) -> dict[str, dict[str, Any]]:
        """What `status` says of each."""
        with self.daemon.client() as client:
            ledger: Any = client.status()["ledger"]
        return {one["witness"]: dict(one) for one in ledger["witnesses"]} | {"": dict(ledger)}

    def entry(self) -> None:
        with self.daemon.client() as client:
            assert client.run(["/bin/true"]).exit_code == 0

    def until_cosigned(self, *names: str) -> None:
        """Until these have cosigned every entry that there is now."""
        entries = self.standing()[""]["entries"]
        until(lambda: all(self.standing()[name]["entries"] >= entries for name in names))

    def told(self) -> list[str]:
        """What the ledger says of its witnesses."""
        return [
            " ".join([line["data"]["witness"], line["type"].removeprefix("witness."), line["data"].get("code", "")])
            for line in entries_in(self.state)
            if line["type"].startswith("witness.")
        ]

    def witnessed(self, require: int) -> Witnessed:
        """The newest note that lies there."""
        *_, newest = sorted(one for one in (self.ledger / "witnessed").iterdir() if one.name.isdigit())
        keys = [one.key for one in self.witnesses]
        return open_witnessed(newest.read_bytes(), load_vkeys(self.state / "keys/ledger.vkey"), keys, require)

    def verified(self, require: int, *witnesses: Process) -> int:
        """How `immure ledger verify` ends that demands so many of these."""
        named = [word for one in witnesses for word in ("--witness", one.key.encode())]
        words = ("--state", str(self.state), *named, "--require", str(require))
        return immure("ledger", "verify", *words, check=False).returncode

    def row(self, name: str) -> tuple[str, str]:
        with self.daemon.client() as client:
            found = next(row for row in client.preflight().of("audit") if f"witness {name}" in row.words)
        return found.verdict, found.code or ""


@pytest.fixture
def place() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="witnessed-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def witnesses(place: Path) -> Iterator[list[Process]]:
    with serving(place / "w1") as first, serving(place / "w2") as second:
        yield [first, second]


@pytest.fixture
def host(witnesses: list[Process]) -> Iterator[Host]:
    host = Host(witnesses)
    host.trusted()
    with host.daemon:
        yield host


def test_two_witnesses_cosign_one_head_and_all_of_it_when_it_stops(host: Host) -> None:
    host.entry()
    host.until_cosigned("w1", "w2")
    assert {cosigned.key for cosigned in host.witnessed(2).cosignatures} == {one.key for one in host.witnesses}
    assert host.row("w1") == host.row("w2") == ("pass", "")
    host.entry()
    assert host.daemon.stop() == 0
    lines = (host.ledger / "current.jsonl").read_bytes().count(b"\n")
    assert host.witnessed(2).checkpoint.size == lines
    assert host.told() == []
    assert host.verified(2, *host.witnesses) == 0


def test_whoever_verifies_says_whose_word_he_wants(host: Host, place: Path) -> None:
    host.until_cosigned("w1", "w2")
    assert host.daemon.stop() == 0
    stranger = Process(place / "stranger")
    assert host.verified(2, *host.witnesses, stranger) == 0
    assert host.verified(3, *host.witnesses, stranger) == 1
    assert host.verified(1, stranger) == 1


def test_one_that_is_away_is_told_once_and_catches_up(host: Host) -> None:
    host.entry()
    host.until_cosigned("w1", "w2")
    first, second = host.witnesses
    first.kill()
    for _ in range(3):
        host.entry()
        host.until_cosigned("w2")
    until(lambda: host.standing()["w1"].get("code") == "witness_unreachable")
    assert host.row("w1") == ("fail", "witness_unreachable")
    assert host.witnessed(1).cosignatures[0].key == second.key
    first.start()
    until(lambda: host.row("w1")[0] == "pass")  # whoever asks has it tried at once
    host.until_cosigned("w1", "w2")
    assert len(host.witnessed(2).cosignatures) == 2
    until(lambda: len(host.told()) == 2)
    assert host.told() == ["w1 failed witness_unreachable", "w1 recovered "]


def test_after_days_away_one_proof_is_enough(host: Host) -> None:
    host.entry()
    host.until_cosigned("w1")
    assert host.daemon.stop() == 0
    host.witnesses[0].stop()
    host.witnesses[1].stop()
    for _ in range(2):
        host.daemon.start()
        for _ in range(5):
            host.entry()
        assert host.daemon.stop() == 0
    for one in host.witnesses:
        one.start()
    host.daemon.start()
    host.until_cosigned("w1", "w2")
    told = ["w1 failed witness_unreachable", "w1 recovered ", "w2 failed witness_unreachable", "w2 recovered "]
    until(lambda: sorted(host.told()) == told)


def test_one_witness_serves_many_hosts(place: Path, witnesses: list[Process]) -> None:
    one = witnesses[:1]
    hosts = [Host(one), Host(one)]
    for host in hosts:
        host.trusted()
    with hosts[0].daemon:
        hosts[0].entry()
        hosts[0].until_cosigned("w1")
        with hosts[1].daemon:
            hosts[1].entry()
            hosts[1].until_cosigned("w1")
            origins = {host.witnessed(1).checkpoint.origin for host in hosts}
    listed = json.loads(immure("ledger", "witness", "list", "--state", str(one[0].state), "--json").stdout)
    assert {known["origin"] for known in listed} == origins
    assert len(origins) == 2


def test_a_witness_that_was_not_told_of_the_ledger_says_so(witnesses: list[Process]) -> None:
    host = Host(witnesses)
    host.trusted(witnesses[1])
    with host.daemon:
        host.until_cosigned("w2")
        until(lambda: host.standing()["w1"].get("code") == "witness_unknown_log")
        host.trusted()
        until(lambda: host.row("w1")[0] == "pass")
        until(lambda: len(host.told()) >= 2)
        assert host.told()[:2] == ["w1 failed witness_unknown_log", "w1 recovered "]


def test_a_key_that_is_not_the_witnesses_is_found(witnesses: list[Process]) -> None:
    host = Host(witnesses)
    host.trusted()
    other = host.witnesses[1].key.public
    first = host.witnesses[0].key
    host.configure(keys={1: type(first)(first.name + "x", other[::-1]).encode()})
    with host.daemon:
        host.until_cosigned("w2")
        until(lambda: host.standing()["w1"].get("code") == "witness_bad_answer")
        assert host.witnessed(1).cosignatures[0].key == host.witnesses[1].key


# --- whoever has the host, its disk, and its key


def cut_back(ledger: Path, size: int) -> None:
    """What somebody does who wants the last entries gone, and knows the format: every file that says more goes too."""
    log = ledger / "current.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:size]))
    for folder in ("checkpoints", "witnessed"):
        for one in (ledger / folder).iterdir():
            if one.name.isdigit() and int(one.name) > size:
                one.unlink()
    (ledger / "resume").unlink(missing_ok=True)
    shutil.rmtree(ledger / "tree", ignore_errors=True)


def test_a_ledger_that_was_cut_back_starts_and_is_refused(host: Host) -> None:
    host.entry()
    host.until_cosigned("w1", "w2")
    small = host.witnessed(2).checkpoint.size
    host.entry()
    assert host.daemon.stop() == 0
    full = host.witnessed(2).checkpoint
    cut_back(host.ledger, small)
    assert immure("ledger", "verify", "--state", str(host.state)).returncode == 0  # nothing here can tell
    host.daemon.start()
    until(lambda: len(host.told()) == 2)
    assert sorted(host.told()) == ["w1 refused witness_ahead", "w2 refused witness_ahead"]
    assert host.row("w1") == ("fail", "witness_ahead")
    data = next(entry["data"] for entry in entries_in(host.state) if entry["type"] == "witness.refused")
    assert (data["theirs"]["size"], data["theirs"]["root"]) == (full.size, full.root.hex())


def test_a_cut_ledger_that_grows_past_what_was_seen_is_a_fork(host: Host) -> None:
    host.entry()
    host.until_cosigned("w1", "w2")
    small = host.witnessed(2).checkpoint.size
    host.entry()
    assert host.daemon.stop() == 0
    size = host.witnessed(2).checkpoint.size
    for one in host.witnesses:
        one.stop()
    cut_back(host.ledger, small)
    host.daemon.start()
    while host.standing()[""]["entries"] <= size + 4:
        host.entry()
    host.witnesses[0].start()
    until(lambda: host.row("w1")[1] == "witness_forked")
    until(lambda: "w1 refused witness_forked" in host.told())
    host.witnesses[0].until_said("REFUSED")


def test_a_ledger_that_was_written_anew_with_its_own_key_is_refused(host: Host, place: Path) -> None:
    host.entry()
    host.until_cosigned("w1", "w2")
    assert host.daemon.stop() == 0
    seen = host.witnessed(2).checkpoint
    forged = rewritten(host, place)
    host.daemon.start()
    until(lambda: len(host.told()) == 2)
    assert sorted(host.told()) == ["w1 refused witness_forked", "w2 refused witness_forked"]
    data = next(entry["data"] for entry in entries_in(host.state) if entry["type"] == "witness.refused")
    assert data["theirs"]["root"] == seen.root.hex()
    assert forged
    assert host.row("w1") == ("fail", "witness_forked")


def rewritten(host: Host, place: Path) -> bool:
    """The whole ledger again, line by line with its own first line, one word in it changed, every `prev` and checkpoint
    made anew with the ledger's own key."""
    log = host.ledger / "current.jsonl"
    made: list[bytes] = []
    lines, prev, changed = log.read_bytes().splitlines(), "", False
    tree = Frontier()
    for old in lines:
        line = old
        if made:
            entry = json.loads(old)
            line = old.replace(entry["prev"].encode(), prev.encode())
            if entry["type"] == "run.accepted":
                line, changed = line.replace(b"/bin/true", b"/bin/sync"), True
        made.append(line)
        leaf = leaf_hash(line)
        tree.append(leaf)
        prev = leaf.hex()
    log.write_bytes(b"".join(one + b"\n" for one in made))
    signer = Signer(load_private(host.state / "keys/ledger.pem"), f"immured/{leaf_hash(made[0]).hex()[:32]}")
    cut_back(host.ledger, len(made))
    for folder in ("checkpoints", "witnessed"):
        for one in (host.ledger / folder).iterdir():
            one.unlink()
    note = signer.sign(Checkpoint(signer.verifier.name, len(made), tree.root()))
    (host.ledger / "checkpoints" / file_name(len(made))).write_bytes(note)
    assert immure("ledger", "verify", "--state", str(host.state)).returncode == 0  # by everything that is there
    return changed


# --- what asks, and what it waits for


def test_who_asks_is_ended_and_nothing_else_is(host: Host) -> None:
    host.entry()
    host.until_cosigned("w1", "w2")
    for pid in exporters(host.daemon):
        os.kill(pid, signal.SIGKILL)
    until(lambda: host.standing()["w1"].get("code") == host.standing()["w2"].get("code") == "witness_ended")
    assert host.row("w1") == ("fail", "witness_ended")
    host.entry()
    until(lambda: sorted(host.told()) == ["w1 failed witness_ended", "w2 failed witness_ended"])


def test_one_that_hangs_holds_neither_runs_nor_the_stop_up(host: Host) -> None:
    host.entry()
    host.until_cosigned("w1", "w2")
    hangs = host.witnesses[0]
    os.kill(hangs.pid, signal.SIGSTOP)
    try:
        for _ in range(3):
            host.entry()
            host.until_cosigned("w2")
        until(lambda: host.standing()["w1"].get("code") == "witness_unreachable")
        assert host.daemon.stop() == 0
    finally:
        os.kill(hangs.pid, signal.SIGCONT)
    assert host.witnessed(1).cosignatures[0].key == host.witnesses[1].key
    host.daemon.start()
    host.until_cosigned("w1", "w2")
    until(lambda: host.told() == ["w1 failed witness_unreachable", "w1 recovered "])


def test_a_key_that_was_rotated_is_followed_once_the_witness_is_told(host: Host) -> None:
    host.entry()
    host.until_cosigned("w1", "w2")
    with host.daemon.client() as client:
        client.call("ledger.rotate_key", {})
    host.trusted(host.witnesses[1])
    host.entry()
    host.entry()
    host.until_cosigned("w2")
    until(lambda: host.standing()["w1"].get("code") == "witness_unknown_key")
    host.trusted()
    until(lambda: host.row("w1")[0] == "pass")
    host.until_cosigned("w1", "w2")
    assert host.daemon.stop() == 0
    assert len(host.witnessed(2).cosignatures) == 2
    assert host.verified(2, *host.witnesses) == 0
