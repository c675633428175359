"""What a starting daemon learns from the ledger, whatever the last one left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from immured.identity.keyring import KeyRecord, Keyring, Role
from immured.identity.replay import AlreadyDone, Claim, ReplayRecord
from immured.ledger import Ledger
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
    recovery = Recovery(replay, keyring or state.keyring, lambda: NOW)
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
    assert recovery.keyring.find(record.id) == record
    assert recovery.keyring.as_of == 1


def test_a_key_that_was_taken_out_of_the_file_stays_out(state: State) -> None:
    record, entry = added()
    write(state, entry)
    recovery, _ = recover(state, state.keyring.at(1))
    assert recovery.keyring.find(record.id) is None


def test_what_a_later_version_wrote_is_passed_over(state: State) -> None:
    write(state, ("lease.granted", ACTOR, {"nonce": 4}))
    recovery, replay = recover(state)
    assert (list(recovery.lost), len(replay)) == ([], 0)
