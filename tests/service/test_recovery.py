"""What a starting daemon learns from the ledger, whatever the last one left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from immured.identity.authority import Authority
from immured.identity.keyring import KeyRecord, Keyring, Role
from immured.identity.replay import AlreadyDone, Claim, ReplayRecord
from immured.ledger import Ledger
from immured.service.policies import shipped_policy
from immured.service.recovery import Recovery
from immured.service.state import State, init_state
from immured.wire.keys import PrivateKey

NOW = 1_800_000_000_000
EXP = NOW + 60_000
ACTOR = {"key": "ed25519:" + "a" * 32, "name": "ci", "uid": 1000}
ORDER = {"cmd": "run", "nonce": "11" * 16, "payload": "22" * 32, "iat": NOW, "exp": EXP}


@pytest.fixture
def state(tmp_path: Path) -> State:
    return init_state(tmp_path / "state")


def write(state: State, *entries: tuple[str, Mapping[str, object], Mapping[str, object]]) -> None:
    with Ledger.open(state.paths.root) as ledger:
        for kind, actor, data in entries:
            ledger.entry(kind, actor, data).wait()


def recover(state: State, keyring: Keyring | None = None) -> tuple[Recovery, ReplayRecord]:
    replay = ReplayRecord()
    recovery = Recovery(replay, Authority(keyring or state.keyring, shipped_policy()), lambda: NOW)
    Ledger.open(state.paths.root, visit=recovery.visit).close()
    return recovery, replay


def claim(replay: ReplayRecord) -> Any:
    return replay.claim(ACTOR["key"], b"\x11" * 16, b"\x22" * 32, 1000, EXP, NOW)  # type: ignore[arg-type]


def test_a_run_without_an_outcome_is_lost(state: State) -> None:
    write(state, ("run.accepted", ACTOR, {**ORDER, "sandbox": "s1"}))
    recovery, _ = recover(state)
    assert [(lost.sandbox, lost.intent) for lost in recovery.lost] == [("s1", 1)]


@pytest.mark.parametrize("outcome", ["run.finished", "run.lost"])
def test_a_run_with_an_outcome_is_not(state: State, outcome: str) -> None:
    write(state, ("run.accepted", ACTOR, {**ORDER, "sandbox": "s1"}), (outcome, {"daemon": "d"}, {"intent": 1}))
    recovery, _ = recover(state)
    assert list(recovery.lost) == []


def test_a_nonce_that_acted_does_not_act_again(state: State) -> None:
    write(state, ("run.accepted", ACTOR, {**ORDER, "sandbox": "s1"}), ("run.finished", {"daemon": "d"}, {"intent": 1}))
    _, replay = recover(state)
    verdict = claim(replay)
    assert isinstance(verdict, AlreadyDone)
    assert verdict.intent is not None
    assert verdict.outcome is not None
    assert (verdict.intent.seq, verdict.outcome.seq) == (1, 2)


def test_a_preflight_is_its_own_intent_and_outcome(state: State) -> None:
    write(state, ("preflight.done", ACTOR, {**ORDER, "cmd": "preflight", "verdict": "pass"}))
    _, replay = recover(state)
    verdict = claim(replay)
    assert isinstance(verdict, AlreadyDone)
    assert (verdict.intent, verdict.outcome and verdict.outcome.seq) == (None, 1)


def test_what_the_ledger_says_of_its_copies_is_known(state: State) -> None:
    daemon = {"daemon": "d"}
    write(
        state,
        ("export.began", daemon, {"destination": "/a", "folder": "0"}),
        ("export.failed", daemon, {"destination": "/a", "code": "export_silent"}),
        ("export.recovered", daemon, {"destination": "/a", "failed": 2}),
        ("export.failed", daemon, {"destination": "/b", "code": "export_silent"}),
    )
    recovery, _ = recover(state)
    assert (recovery.exports.begun, recovery.exports.failed) == ({"/a"}, {"/b": 4})


def test_a_denied_nonce_stays_denied(state: State) -> None:
    write(state, ("command.denied", ACTOR, {**ORDER, "code": "denied"}))
    _, replay = recover(state)
    assert isinstance(claim(replay), AlreadyDone)


def test_a_denial_before_the_claim_takes_no_nonce(state: State) -> None:
    write(state, ("command.denied", ACTOR, {"nonce": "11" * 16, "payload": "22" * 32, "code": "peer_not_bound"}))
    _, replay = recover(state)
    assert isinstance(claim(replay), Claim)


def test_what_expired_takes_no_memory(state: State) -> None:
    write(state, ("run.accepted", ACTOR, {**ORDER, "exp": NOW - 60_000, "sandbox": "s1"}))
    _, replay = recover(state)
    assert len(replay) == 0


def added(name: str = "late") -> tuple[KeyRecord, tuple[str, Mapping[str, object], Mapping[str, object]]]:
    record = KeyRecord(PrivateKey.generate().public, name, Role.RUNNER, "2026-01-02T03:04:05Z")
    return record, ("key.added", ACTOR, {**ORDER, "cmd": "key.add", "record": record.to_map()})


def test_a_key_that_the_ledger_has_and_the_file_has_not_is_added(state: State) -> None:
    record, entry = added()
    write(state, entry)
    recovery, _ = recover(state)
    assert recovery.authority.keyring.find(record.id) == record
    assert recovery.authority.keyring.as_of == 1


def test_a_key_that_was_taken_out_of_the_file_stays_out(state: State) -> None:
    record, entry = added()
    write(state, entry)
    recovery, _ = recover(state, state.keyring.at(1))
    assert recovery.authority.keyring.find(record.id) is None


def test_what_a_later_version_wrote_is_passed_over(state: State) -> None:
    write(state, ("lease.granted", ACTOR, {"nonce": 4}))
    recovery, replay = recover(state)
    assert (list(recovery.lost), len(replay)) == ([], 0)


BATCH = {**ORDER, "cmd": "run.batch", "batch": "b1", "runs": 4}


def test_a_batch_without_an_end_is_lost_and_its_nonce_does_not_act_again(state: State) -> None:
    told = {"intent": 1, "outcomes": [{"run": 0}, {"run": 2}]}
    more = {"intent": 1, "from": 2, "commands": [{}]}
    write(state, ("batch.accepted", ACTOR, BATCH), ("batch.accepted", ACTOR, more), ("batch.progress", ACTOR, told))
    recovery, replay = recover(state)
    with Ledger.open(state.paths.root) as ledger:
        [(settled, pending)] = recovery.batches.tell(ledger, {"daemon": "d"})
        pending.wait()
    assert settled is not None
    assert isinstance(claim(replay), AlreadyDone)
    recovery, _ = recover(state)
    with Ledger.open(state.paths.root) as ledger:
        last = list(ledger.replay())[-1]
        assert (last.type, last.data["intent"], last.data["unknown"]) == ("batch.lost", 1, "1,3")
        assert recovery.batches.tell(ledger, {"daemon": "d"}) == []


def test_a_batch_with_an_end_gives_its_receipt(state: State) -> None:
    write(state, ("batch.accepted", ACTOR, BATCH), ("batch.finished", {"daemon": "d"}, {"intent": 1}))
    recovery, replay = recover(state)
    with Ledger.open(state.paths.root) as ledger:
        assert recovery.batches.tell(ledger, {"daemon": "d"}) == []
    done = claim(replay)
    assert isinstance(done, AlreadyDone)
    assert done.outcome is not None
    assert done.outcome.seq == 2


def session(name: str, ends: int) -> tuple[str, Mapping[str, object], Mapping[str, object]]:
    record = {
        "session": name,
        "owners": ["k"],
        "tenant": "default",
        "project": "default",
        "opened_ms": 0,
        "expires_ms": ends,
        "idle_ms": ends,
        "used_ms": 0,
    }
    return "session.opened", ACTOR, {**ORDER, "cmd": "session.open", "record": record}


def test_what_ended_long_ago_takes_no_memory(state: State) -> None:
    day = 24 * 3600 * 1000
    write(state, session("old", NOW - day), session("young", NOW - day + 1))
    recovery, _ = recover(state)
    assert [one.id for one in recovery.authority.sessions] == ["young"]


def test_a_command_under_counting_certificates_is_counted_once(state: State) -> None:
    actor = {**ACTOR, "root": "ed25519:" + "b" * 32}
    counted = {**ORDER, "counted": {"sha256:aa": NOW + 1, "sha256:bb": NOW + 1}}
    over = {**ORDER, "nonce": "33" * 16, "counted": {"sha256:cc": NOW}}
    denied = {**ORDER, "nonce": "44" * 16, "code": "denied", "counted": {"sha256:aa": NOW + 1}}
    write(
        state,
        ("sandbox.created", actor, {**counted, "sandbox": "a"}),
        ("sandbox.created", actor, {**counted, "sandbox": "b"}),
        ("run.accepted", actor, {**over, "sandbox": "c"}),
        ("command.denied", actor, denied),
    )
    uses = recover(state)[0].authority.uses
    assert [uses.used(str(actor["root"]), digest) for digest in ("sha256:aa", "sha256:bb", "sha256:cc")] == [1, 1, 0]
