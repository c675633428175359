"""What a witness answers, status by status as C2SP's tlog-witness has it, and what it never cosigns."""

from __future__ import annotations

import base64
import hashlib
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immured.ledger.checkpoint import Checkpoint, CosignKey, Signer, open_witnessed
from immured.ledger.witness import MAX_BODY, Answer, Malformed, Witness, parse_submission
from immured.ledger.witness_state import WitnessState, origin_hash
from tests.ledger.witness.logs import Log, consistency, made, root, submission
from tests.patience import PATIENCE_S


@pytest.fixture
def log() -> Log:
    return Log().grow(40)


@pytest.fixture
def witness(tmp_path: Path, log: Log) -> Witness:
    return made(tmp_path, log)[0]


def key_of(witness: Witness) -> CosignKey:
    return witness._cosigner.verifier


def cosigned(witness: Witness, log: Log, note: bytes, answer: Answer) -> Checkpoint:
    """What the answer's lines say, put below the note that was sent."""
    assert answer.status == 200, answer
    found = open_witnessed(note + answer.body, [log.signer.verifier], [key_of(witness)], 1)
    assert found.cosignatures[0].time_s > 1_700_000_000
    return found.checkpoint


# --- what is cosigned


def test_a_log_that_grows_is_cosigned_at_every_step(witness: Witness, log: Log) -> None:
    at = 0
    for size in (0, 1, 2, 3, 8, 13, 13, 40):
        answer = witness.add_checkpoint(log.body(at, size))
        assert cosigned(witness, log, log.note(size), answer).size == size
        at = size


def test_the_answer_is_nothing_but_the_witnesses_line(witness: Witness, log: Log) -> None:
    body = witness.add_checkpoint(log.body(0)).body
    assert body.startswith("— witness.example/w1 ".encode())
    assert body.count(b"\n") == 1
    assert body.endswith(b"\n")


def test_what_is_shown_to_monitors_has_both_signatures_and_no_strangers(witness: Witness, log: Log) -> None:
    stranger = Signer(Log().private, "stranger.example/1")
    text = Checkpoint(log.origin, 40, root(log.leaves)).text()
    witness.add_checkpoint(log.body(0) + stranger.line(text))
    shown = witness.checkpoint(origin_hash(log.origin))
    assert shown.status == 200
    assert open_witnessed(shown.body, [log.signer.verifier], [key_of(witness)], 1).checkpoint.size == 40
    assert b"stranger" not in shown.body


def test_a_log_may_sign_with_two_keys_while_it_changes_them(tmp_path: Path, log: Log) -> None:
    witness, state = made(tmp_path, log)
    after = Signer(Log().private, log.origin)
    state.trust([after.verifier])
    text = Checkpoint(log.origin, 40, root(log.leaves)).text()
    both = text + b"\n" + log.signer.line(text) + after.line(text)
    assert witness.add_checkpoint(submission(0, (), both)).status == 200
    assert witness.add_checkpoint(submission(40, (), text + b"\n" + after.line(text))).status == 200


# --- what is not


def test_malformed(witness: Witness, log: Log) -> None:
    for body in (
        *(b"", b"\n", b"old 0", b"old 0\n", b"old 0\n\n", b"old 01\n\n" + log.note(), b"Old 0\n\n" + log.note()),
        *(b"old -1\n\n" + log.note(), b"old 0 \n\n" + log.note(), b"old 0\r\n\r\n" + log.note()),
        submission(0, (), b"\xff" + log.note()),
        submission(8, [b"short"], log.note()),
        submission(8, [bytes(32)] * 64, log.note()),
        b"old 8\n!" + b"\n\n" + log.note(),
        b"old 8\n" + base64.b64encode(bytes(32)).rstrip(b"=") + b"\n\n" + log.note(),
        b"old 0\n\n" + log.note() + b"x" * MAX_BODY,
        submission(0, (), b"o" * 300 + log.note()),
    ):
        assert witness.add_checkpoint(body).status == 400, body[:60]


def test_an_old_size_above_the_checkpoints_is_a_bad_request(witness: Witness, log: Log) -> None:
    assert witness.add_checkpoint(submission(41, (), log.note())).status == 400


def test_an_unknown_log_is_not_found(witness: Witness) -> None:
    other = Log("log.example/other").grow(3)
    assert witness.add_checkpoint(other.body(0)).status == 404
    assert witness.checkpoint(origin_hash("log.example/other")).status == 404
    assert witness.checkpoint("../../../etc/passwd").status == 404


def test_a_key_that_is_not_trusted_is_forbidden(witness: Witness, log: Log) -> None:
    thief = Log(log.origin)
    thief.leaves = log.leaves
    assert witness.add_checkpoint(thief.body(0)).status == 403


def test_a_key_is_trusted_for_its_own_log_alone(tmp_path: Path, log: Log) -> None:
    other = Log("log.example/other").grow(3)
    witness, _ = made(tmp_path, log, other)
    text = Checkpoint(log.origin, 3, root(other.leaves)).text()
    assert witness.add_checkpoint(submission(0, (), text + b"\n" + other.signer.line(text))).status == 403


def test_a_known_keys_bad_signature_is_forbidden_beside_a_good_one(witness: Witness, log: Log) -> None:
    note = log.note()
    good = note.splitlines(keepends=True)[-1]
    raw = bytearray(base64.b64decode(good.split(b" ")[2]))
    raw[20] ^= 1
    bad = "— ".encode() + log.origin.encode() + b" " + base64.b64encode(bytes(raw)) + b"\n"
    assert witness.add_checkpoint(submission(0, (), note + bad)).status == 403
    assert witness.add_checkpoint(submission(0, (), note)).status == 200


def test_another_old_size_is_told_where_the_witness_is(witness: Witness, log: Log) -> None:
    witness.add_checkpoint(log.body(0, 13))
    for old in (0, 12, 14):
        answer = witness.add_checkpoint(log.body(old, 40))
        assert (answer.status, answer.body, answer.content_type) == (409, b"13\n", "text/x.tlog.size")


def test_a_proof_that_is_none_is_not_processed(witness: Witness, log: Log) -> None:
    assert witness.add_checkpoint(submission(0, [bytes(32)], log.note(8))).status == 422
    witness.add_checkpoint(log.body(0, 13))
    right = consistency(13, log.leaves)
    for proof in (
        [],
        right[:-1],
        [*right, bytes(32)],
        [right[1], right[0], *right[2:]],
        [bytes(32), *right[1:]],
    ):
        assert witness.add_checkpoint(submission(13, proof, log.note())).status == 422
    assert witness.add_checkpoint(submission(13, [bytes(32)], log.note(13))).status == 422
    assert witness.add_checkpoint(submission(13, right, log.note())).status == 200


def test_a_tree_of_no_leaves_has_their_root(witness: Witness, log: Log) -> None:
    note = log.signer.sign(Checkpoint(log.origin, 0, bytes(32)))
    assert witness.add_checkpoint(submission(0, (), note)).status == 422


# --- what a log that holds its own key may try


def test_a_fork_is_refused_wherever_it_begins(witness: Witness, log: Log) -> None:
    witness.add_checkpoint(log.body(0, 20))
    for at in range(20):
        fork = log.fork(at, 40 - at)
        for proof in (consistency(20, fork.leaves), consistency(20, log.leaves)):
            assert witness.add_checkpoint(submission(20, proof, fork.note())).status == 422
    assert witness.add_checkpoint(log.body(20)).status == 200


def test_a_rollback_is_refused(witness: Witness, log: Log) -> None:
    witness.add_checkpoint(log.body(0, 20))
    for old in range(21):
        assert witness.add_checkpoint(log.body(min(old, 19), 19)).status == 409
    assert witness.add_checkpoint(submission(20, (), log.note(19))).status == 400


def test_two_heads_of_one_size_are_kept_as_evidence(tmp_path: Path, log: Log) -> None:
    witness, state = made(tmp_path, log)
    witness.add_checkpoint(log.body(0, 20))
    fork = log.fork(7, 13)
    assert witness.add_checkpoint(fork.body(20, 20)).status == 422
    (known,) = state.known()
    (name,) = known.conflicts
    kept = state.where(origin_hash(log.origin)) / "conflicts" / name
    assert kept.read_bytes() == fork.note()
    for seed in range(30):
        assert witness.add_checkpoint(log.fork(7, 13, str(seed)).body(20, 20)).status == 422
    (known,) = state.known()
    assert len(known.conflicts) == 16


def test_the_evidence_of_one_log_is_not_anothers(tmp_path: Path, log: Log) -> None:
    other = Log("log.example/other").grow(20)
    witness, state = made(tmp_path, log, other)
    witness.add_checkpoint(log.body(0, 20))
    witness.add_checkpoint(other.body(0, 20))
    assert witness.add_checkpoint(log.fork(3, 17).body(20)).status == 422
    assert {one.origin: len(one.conflicts) for one in state.known()} == {log.origin: 1, other.origin: 0}


# --- memory


def test_what_it_knows_is_what_the_disk_holds(tmp_path: Path, log: Log) -> None:
    made(tmp_path, log)[0].add_checkpoint(log.body(0, 20))
    again = made(tmp_path, log)[0]
    assert again.add_checkpoint(log.body(0)).status == 409
    assert again.add_checkpoint(log.body(20)).status == 200


def test_a_memory_that_was_changed_is_no_beginning(tmp_path: Path, log: Log) -> None:
    witness, state = made(tmp_path, log)
    witness.add_checkpoint(log.body(0, 20))
    path = state.where(origin_hash(log.origin)) / "checkpoint"
    kept = path.read_bytes()
    for changed in (b"", kept[:-5], kept.replace(b"\n20\n", b"\n19\n"), log.note(3), b"\xff\xfe"):
        path.write_bytes(changed)
        assert witness.add_checkpoint(log.body(0)).status == 500
        assert witness.add_checkpoint(log.body(3)).status == 500
    path.write_bytes(kept)
    assert witness.add_checkpoint(log.body(20)).status == 200


def test_an_earlier_note_of_the_witnesses_own_shows_where_it_was(tmp_path: Path, log: Log) -> None:
    """What no witness can tell by itself: that its directory is an older copy. docs/witness.md says so."""
    witness, state = made(tmp_path, log)
    witness.add_checkpoint(log.body(0, 8))
    path = state.where(origin_hash(log.origin)) / "checkpoint"
    older = path.read_bytes()
    witness.add_checkpoint(log.body(8, 20))
    path.write_bytes(older)
    assert made(tmp_path, log)[0].add_checkpoint(log.body(20)).body == b"8\n"


def test_the_same_again_costs_no_write_for_a_while(tmp_path: Path, log: Log) -> None:
    _, state = made(tmp_path, log)
    now = [2_000_000_000.0]
    witness = Witness(state, state.cosigner(), lambda: now[0])
    path = state.where(origin_hash(log.origin)) / "checkpoint"
    first = witness.add_checkpoint(log.body(0, 20))
    before = path.stat().st_ino
    assert witness.add_checkpoint(log.body(20, 20)).body == first.body
    assert path.stat().st_ino == before
    now[0] += 11
    later = witness.add_checkpoint(log.body(20, 20))
    assert later.body != first.body
    assert later.body in path.read_bytes()
    # A process that has just begun does not know whether what is there is durable: it is written again.
    begun = Witness(state, state.cosigner(), lambda: now[0])
    before = path.stat().st_ino
    assert begun.add_checkpoint(log.body(20, 20)).status == 200
    assert path.stat().st_ino != before


def test_one_log_does_not_have_all_the_disk(tmp_path: Path) -> None:
    log, other = Log().grow(200), Log("log.example/other").grow(3)
    _, state = made(tmp_path, log, other)
    witness = Witness(state, state.cosigner(), steady=lambda: 0.0)
    statuses = [witness.add_checkpoint(log.body(size, size + 1)).status for size in range(40)]
    assert statuses.count(200) >= 30
    assert 429 in statuses
    assert witness.add_checkpoint(other.body(0)).status == 200


# --- at the same time


def test_of_many_at_once_one_history_is_cosigned(tmp_path: Path, log: Log) -> None:
    """The race of the specification: each checks against 8, and only one may go on from there."""
    witness, _ = made(tmp_path, log)
    witness.add_checkpoint(log.body(0, 8))
    bodies = [log.body(8, size) for size in range(9, 20)] + [log.fork(8, 5, str(n)).body(8) for n in range(6)]
    answers: list[int] = []
    start = threading.Barrier(len(bodies))

    def ask(body: bytes) -> None:
        start.wait(PATIENCE_S)
        answers.append(witness.add_checkpoint(body).status)

    threads = [threading.Thread(target=ask, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(answers) == [200] + [409] * (len(bodies) - 1)


# --- all of it: whatever is asked, in whatever order, what was cosigned of a log is one history


STEPS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 24), st.integers(0, 24), st.booleans()), max_size=40)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_what_was_cosigned_of_a_log_is_one_history(steps: list[tuple[int, int, int, bool]]) -> None:
    log = Log().grow(24)
    histories = [log, log.fork(5, 19, "a"), log.fork(12, 12, "b"), log.fork(0, 24, "c")]
    with tempfile.TemporaryDirectory() as place:
        witness, state = made(Path(place), log)
        signed: list[list[bytes]] = []
        for which, said, size, honest in steps:
            history = histories[which]
            known = len(signed[-1]) if signed else 0
            old = known if honest else said
            if old > size:
                continue
            answer = witness.add_checkpoint(history.body(old, size))
            longer = history.leaves[:size]
            extends = old == known and (not signed or longer[:known] == signed[-1])
            assert (answer.status == 200) == extends or answer.status == 429, (answer, which, old, size)
            if answer.status == 200:
                signed.append(longer)
            if not signed:
                continue
            kept = open_witnessed(
                witness.checkpoint(origin_hash(log.origin)).body, [log.signer.verifier], [state.cosigner().verifier], 1
            )
            assert (kept.checkpoint.size, kept.checkpoint.root) == (len(signed[-1]), root(signed[-1]))


# --- bytes of strangers


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_bytes_are_malformed_or_read(body: bytes) -> None:
    try:
        read = parse_submission(b"old " + body)
    except Malformed:
        return
    assert read.origin
    assert all(len(one) == 32 for one in read.proof)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_changed_submission_is_cosigned_only_where_the_change_says_nothing(data: st.DataObject) -> None:
    log = Log().grow(11)
    with tempfile.TemporaryDirectory() as place:
        witness, _ = made(Path(place), log)
        assert witness.add_checkpoint(log.body(0, 6)).status == 200
        body = bytearray(log.body(6))
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(body) - 1))
            what = data.draw(st.sampled_from(["flip", "drop", "double"]))
            if what == "flip":
                body[at] ^= 1 << data.draw(st.integers(0, 7))
            elif what == "drop":
                del body[at]
            else:
                body.insert(at, body[at])
        answer = witness.add_checkpoint(bytes(body))
        assert answer.status in (200, 400, 403, 404, 409, 422)
        if answer.status == 200:
            assert bytes(body).partition(b"\n\n")[2].startswith(Checkpoint(log.origin, 11, root(log.leaves)).text())


def test_the_origins_name_in_urls_is_its_digest() -> None:
    assert origin_hash("example.com/behind-the-sofa") == hashlib.sha256(b"example.com/behind-the-sofa").hexdigest()


def test_trust_is_kept_beside_what_is_there(tmp_path: Path, log: Log) -> None:
    _, state = made(tmp_path, log)
    more = Signer(Log().private, log.origin).verifier
    assert state.trust([more, log.signer.verifier]) == (log.origin,)
    assert state.keys(log.origin) == (log.signer.verifier, more)
    assert WitnessState(tmp_path).keys("log.example/nobody") == ()
