"""The key of an open ledger is changed, and whatever a crash leaves of that a start goes on from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from immured.errors import ConfigurationError, Refused
from immured.ledger import Ledger, create
from immured.ledger.checkpoint import NoteError, VerifierKey, open_checkpoint, parse_vkeys, unverified
from immured.ledger.key_change import BothKeys, begin, finish
from immured.ledger.key_rotation import KeyHistory
from immured.ledger.keys import KeyFiles
from immured.ledger.proving import Prover
from immured.ledger.show import entries
from tests.ledger.sample import ACTOR, DAEMON
from tests.patience import PATIENCE_S


@pytest.fixture
def state(tmp_path: Path) -> Path:
    create(tmp_path / "state", DAEMON)
    with Ledger.open(tmp_path / "state") as ledger:
        append(ledger, 5)
    return tmp_path / "state"


def append(ledger: Ledger, count: int = 1) -> None:
    for _ in range(count):
        ledger.entry("run.accepted", ACTOR, {"argv": ["/bin/true"]}).wait(PATIENCE_S)


def keys(state: Path) -> tuple[VerifierKey, ...]:
    return parse_vkeys((state / "keys" / "ledger.vkey").read_text())


def change(ledger: Ledger, state: Path) -> int:
    pending, _ = begin(ledger, KeyFiles(state / "keys"), ACTOR, {})
    seq = pending.wait(PATIENCE_S).seq
    assert finish(ledger, KeyFiles(state / "keys"))
    return seq


def notes(state: Path) -> dict[int, bytes]:
    found = [path.read_bytes() for path in sorted((state / "ledger" / "checkpoints").iterdir())]
    return {unverified(note).size: note for note in found}


def signers(state: Path, note: bytes) -> list[int]:
    """Which of the keys signed, by their number."""
    found = []
    for number, key in enumerate(keys(state)):
        try:
            open_checkpoint(note, [key])
        except NoteError:
            continue
        found.append(number)
    return found


def follow(state: Path, first: VerifierKey) -> KeyHistory:
    """What whoever knows only the first key makes of it; every checkpoint opens by the key of its size."""
    history = KeyHistory([first])
    for entry in entries(state / "ledger"):
        history.take(entry)
    for note in notes(state).values():
        history.open(note)
    return history


def assert_changed(state: Path, first: VerifierKey, seq: int, times: int = 1) -> None:
    assert not (state / "keys" / "ledger.next.pem").exists()
    assert len(keys(state)) == times + 1
    assert follow(state, first).in_force(10**9) == keys(state)[-1:]
    for size, note in notes(state).items():
        if size <= seq:
            assert times not in signers(state, note)
        else:
            assert times in signers(state, note)
    covering = notes(state)[min(size for size in notes(state) if size > seq)]
    assert signers(state, covering) == [times - 1, times]
    with Ledger.open(state) as ledger:  # and it goes on
        append(ledger)
    assert signers(state, notes(state)[max(notes(state))]) == [times]


def test_one_key_takes_anothers_place(state: Path) -> None:
    (first,) = keys(state)
    with Ledger.open(state) as ledger:
        append(ledger)
        seq = change(ledger, state)
        append(ledger)
    assert_changed(state, first, seq)


def test_again_and_again(state: Path) -> None:
    (first,) = keys(state)
    with Ledger.open(state) as ledger:
        change(ledger, state)
        append(ledger)
        change(ledger, state)
        seq = change(ledger, state)
    assert_changed(state, first, seq, 3)


def test_what_is_before_the_entry_is_the_old_keys_alone(state: Path) -> None:
    with Ledger.open(state, checkpoint_seconds=10**6) as ledger:
        append(ledger, 4)
        seq = change(ledger, state)
        assert signers(state, notes(state)[seq]) == [0]
        assert signers(state, notes(state)[seq + 1]) == [0, 1]


def test_the_entrys_proof_is_open_to_whoever_knows_the_old_key(state: Path) -> None:
    (first,) = keys(state)
    with Ledger.open(state) as ledger:
        seq = change(ledger, state)
        append(ledger, 3)
    with Prover.open(state / "ledger") as prover:
        history = KeyHistory([first])
        proof = prover.prove(seq, prover.heads.of(seq + 1))
        assert history.take(proof.check(history).entry) is not None
        assert prover.prove(seq + 2).check(history).entry.seq == seq + 2


def test_another_change_waits_for_the_one_under_way(state: Path) -> None:
    with Ledger.open(state) as ledger:
        files = KeyFiles(state / "keys")
        begin(ledger, files, ACTOR, {})[0].wait(PATIENCE_S)
        with pytest.raises(Refused, match="not finished"):
            begin(ledger, files, ACTOR, {})
        assert finish(ledger, files)
        assert finish(ledger, files)


def test_a_ledger_that_takes_no_entry_keeps_its_key(state: Path) -> None:
    ledger = Ledger.open(state)
    ledger.close()
    with pytest.raises(Refused, match="closed"):
        begin(ledger, KeyFiles(state / "keys"), ACTOR, {})
    assert not (state / "keys" / "ledger.next.pem").exists()


# --- crashes: what is on the disk at each step, as the next start finds it


STEPS = [(step, after) for step in ("begin", "publish", "sign", "finish") for after in (False, True)]


def crash(state: Path, at: str, after: bool, copy: Path) -> tuple[int, bool]:
    """Change the key, and copy the directory just before (or after) a step. The entry's seq; whether it was durable."""
    files = KeyFiles(state / "keys")

    def copied(step: str, do: Callable[..., Any]) -> Callable[..., Any]:
        def done(*arguments: Any, **options: Any) -> Any:
            if step == at and not after and not copy.exists():
                shutil.copytree(state, copy)
            result = do(*arguments, **options)
            if step == at and after and not copy.exists():
                shutil.copytree(state, copy)
            return result

        return done

    ledger = Ledger.open(state, checkpoint_seconds=10**6)
    append(ledger, 2)
    files.begin = copied("begin", files.begin)  # type: ignore[method-assign]
    files.publish = copied("publish", files.publish)  # type: ignore[method-assign]
    files.finish = copied("finish", files.finish)  # type: ignore[method-assign]
    pending, _ = begin(ledger, files, ACTOR, {})
    seq = pending.wait(PATIENCE_S).seq
    ledger.durable.sign = copied("sign", ledger.durable.sign)  # type: ignore[method-assign]
    assert finish(ledger, files)
    ledger.close()
    return seq, at != "begin"


@pytest.mark.parametrize(("at", "after"), STEPS)
def test_a_crash_at_any_step_is_gone_on_from(state: Path, tmp_path: Path, at: str, after: bool) -> None:
    (first,) = keys(state)
    copy = tmp_path / "copy"
    seq, entered = crash(state, at, after, copy)
    with Ledger.open(copy) as ledger:
        assert not isinstance(ledger.durable.signer, BothKeys)
        append(ledger)
    if entered:
        assert_changed(copy, first, seq)
    else:
        assert not (copy / "keys" / "ledger.next.pem").exists()
        assert keys(copy) == (first,)
        follow(copy, first)


def test_a_key_that_the_ledger_does_not_name_is_taken_away(state: Path) -> None:
    shutil.copyfile(state / "keys" / "ledger.pem", state / "keys" / "ledger.next.pem")
    with Ledger.open(state) as ledger:
        append(ledger)
    assert not (state / "keys" / "ledger.next.pem").exists()


def test_a_new_key_that_cannot_be_read_stops_the_start(state: Path) -> None:
    (state / "keys" / "ledger.next.pem").write_text("no key")
    with pytest.raises(ConfigurationError, match=r"ledger\.next\.pem"):
        Ledger.open(state)


def test_a_disk_that_takes_no_checkpoint_leaves_both_keys(state: Path) -> None:
    (first,) = keys(state)
    with Ledger.open(state, checkpoint_seconds=10**6) as ledger:
        pending, _ = begin(ledger, KeyFiles(state / "keys"), ACTOR, {})
        seq = pending.wait(PATIENCE_S).seq
        aside = state / "aside"
        (state / "ledger" / "checkpoints").rename(aside)
        (state / "ledger" / "checkpoints").write_text("no directory")
        assert not finish(ledger, KeyFiles(state / "keys"))
        assert isinstance(ledger.durable.signer, BothKeys)
        (state / "ledger" / "checkpoints").unlink()
        aside.rename(state / "ledger" / "checkpoints")
    with Ledger.open(state):
        pass
    assert_changed(state, first, seq)
