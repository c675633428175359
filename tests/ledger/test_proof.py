"""Proof files: what they show, to whom, and that nothing else passes for one."""

from __future__ import annotations

import base64
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from immured.ledger.checkpoint import Checkpoint, Cosigner, Signer, add_lines, file_name, sign_checkpoint
from immured.ledger.entry import build_line, encode_body, leaf_hash
from immured.ledger.entry_types import LEDGER_KEY_ROTATED
from immured.ledger.key_rotation import KeyHistory, KeyRotation
from immured.ledger.merkle import consistency_path, inclusion_path
from immured.ledger.proof import MAX_PROOF, Consistency, Proof, ProofError
from immured.ledger.proving import NoProof, Prover
from immured.ledger.segments import Files, segment_name
from immured.ledger.timestamps import timestamp
from immured.ledger.tree import Frontier
from tests.ledger.sample import START_NS, head, laid_out, lines, rotated_lines, signer

LINES = lines(40)
LEAVES = [leaf_hash(line) for line in LINES]
ORIGIN = head(LINES, 1).origin
SIGNER = signer(ORIGIN)
KEYS = KeyHistory((SIGNER.verifier,))
WITNESS = Cosigner(Ed25519PrivateKey.from_private_bytes(b"w" * 32), "w.example")


def node(level: int, index: int) -> bytes:
    return Frontier(LEAVES[index << level : (index + 1) << level]).root()


def note(size: int) -> bytes:
    return SIGNER.sign(head(LINES, size))


def proof(seq: int, size: int = 40) -> Proof:
    return Proof(seq, LINES[seq], tuple(inclusion_path(node, seq, size)), note(size))


def consistent(old: int, new: int = 40) -> Consistency:
    return Consistency(old, tuple(consistency_path(node, old, new)), note(new))


# --- one entry


@pytest.mark.parametrize("seq", [0, 1, 17, 31, 32, 39])
def test_a_proof_shows_its_entry(seq: int) -> None:
    made = proof(seq)
    assert Proof.parse(made.encode()) == made
    proven = made.check(KEYS)
    assert (proven.entry.seq, proven.entry.line) == (seq, LINES[seq])
    assert proven.checkpoint == head(LINES, 40)


def test_the_only_entry_needs_no_hashes() -> None:
    made = proof(0, 1)
    assert made.path == ()
    assert Proof.parse(made.encode()).check(KEYS).entry.type == "ledger.created"


def test_the_file_is_as_the_specification_has_it() -> None:
    rows = proof(5).encode().decode().split("\n")
    assert rows[0] == "c2sp.org/tlog-proof@v1"
    assert base64.b64decode(rows[1].removeprefix("extra ")) == LINES[5]
    assert rows[2] == "index 5"
    blank = rows.index("")
    assert [len(base64.b64decode(row)) for row in rows[3:blank]] == [32] * 6
    assert rows[blank + 1 : blank + 3] == [ORIGIN, "40"]


@pytest.mark.parametrize("raw", [False, True])
def test_no_flipped_bit_passes(raw: bool) -> None:
    whole = proof(5).encode()
    keys = KEYS
    for position in range(len(whole)):
        for bit in range(8) if raw else (0, 5):
            flipped = bytearray(whole)
            flipped[position] ^= 1 << bit
            with pytest.raises(ProofError):
                Proof.parse(bytes(flipped)).check(keys)


def test_no_truncation_passes() -> None:
    whole = proof(5).encode()
    for length in range(len(whole)):
        with pytest.raises(ProofError):
            Proof.parse(whole[:length]).check(KEYS)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (replace(proof(5), line=LINES[6]), "its entry is 6, and its index 5"),
        (replace(proof(5), seq=6), "its entry is 5, and its index 6"),
        (replace(proof(5), path=proof(6).path), "not what stands there"),
        (replace(proof(5), note=note(39)), "not what stands there"),
        (replace(proof(39), note=note(39)), "entry 39 is not below a checkpoint of size 39"),
        (replace(proof(5), line=b"{}"), "its entry is none"),
        (replace(proof(5), path=(*proof(5).path, bytes(32))), "not what stands there"),
        (replace(proof(5), note=signer("immured/other").sign(head(LINES, 40))), "no known key signed it"),
    ],
)
def test_what_it_does_not_show_is_said(wrong: Proof, message: str) -> None:
    with pytest.raises(ProofError, match=message):
        Proof.parse(wrong.encode()).check(KEYS)


def test_a_leaf_of_a_line_that_is_no_entry_proves_nothing() -> None:
    # Whoever has the key could sign a tree over anything; what is shown is an entry or nothing.
    leaf = leaf_hash(b"nonsense")
    made = Proof(0, b"nonsense", (), SIGNER.sign(Checkpoint(ORIGIN, 1, leaf)))
    with pytest.raises(ProofError, match="its entry is none"):
        made.check(KEYS)


def test_the_first_entry_of_another_ledger_under_this_ones_name() -> None:
    other = lines(2)[0].replace(b"000102", b"ff0102")
    made = Proof(0, other, (), SIGNER.sign(Checkpoint(ORIGIN, 1, leaf_hash(other))))
    with pytest.raises(ProofError, match="begins the ledger"):
        made.check(KEYS)


def test_a_key_signs_for_its_own_ledger_alone() -> None:
    renamed = Checkpoint("immured/" + "0" * 32, 40, head(LINES, 40).root)
    with pytest.raises(ProofError, match="no key of that name is known"):
        replace(proof(5), note=SIGNER.sign(renamed)).check(KEYS)


def test_witnesses_are_demanded() -> None:
    made = proof(5)
    with pytest.raises(ProofError, match="0 known witnesses cosigned it, 1 are required"):
        made.check(KEYS, (WITNESS.verifier,), 1)
    cosigned = replace(made, note=add_lines(made.note, [WITNESS.line(head(LINES, 40).text(), 1_700_000_000)]))
    (one,) = Proof.parse(cosigned.encode()).check(KEYS, (WITNESS.verifier,), 1).witnessed.cosignatures
    assert (one.key, one.time_s) == (WITNESS.verifier, 1_700_000_000)
    assert cosigned.check(KEYS).witnessed.cosignatures == ()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"c2sp.org/tlog-proof@v1\n",
        b"c2sp.org/tlog-proof@v2\n" + proof(5).encode().partition(b"\n")[2],
        proof(5).encode().replace(b"\nextra ", b"\nEXTRA "),
        proof(5).encode().replace(b"index 5", b"index 05"),
        proof(5).encode().replace(b"index 5", b"index -5"),
        proof(5).encode().replace(b"index 5", b"index 5 "),
        proof(5).encode().replace(b"\n", b"\r\n"),
        b"\n" + proof(5).encode(),
        proof(5).encode() + b"\n",
        proof(5).encode() + b"x" * MAX_PROOF,
        b"\xff" * 100 + b"\n\n" + note(40),
        b"c2sp.org/tlog-proof@v1\nextra \nindex 5\n" + b"QUJD\n" + b"\n" + note(40),
        b"c2sp.org/tlog-proof@v1\nextra \nindex 5\n" + (base64.b64encode(bytes(32)) + b"\n") * 64 + b"\n" + note(40),
    ],
)
def test_what_is_no_proof_is_refused(raw: bytes) -> None:
    with pytest.raises(ProofError):
        Proof.parse(raw).check(KEYS)


def test_whatever_the_bytes_nothing_else_is_raised() -> None:
    chance = random.Random(3)
    whole = proof(5).encode()
    for _ in range(3000):
        made = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(made))
            made[at : at + chance.randint(0, 4)] = chance.randbytes(chance.randint(0, 4))
        if made == whole:
            continue
        with pytest.raises(ProofError):
            Proof.parse(bytes(made)).check(KEYS)
        with pytest.raises(ProofError):
            Consistency.parse(bytes(made)).check(note(5), KEYS)


# --- after another key took the place


def rotated_ledger() -> tuple[list[bytes], Signer, KeyRotation]:
    """Ten lines, the tenth of which gives the key's place to another."""
    made = lines(9)
    new = Signer(Ed25519PrivateKey.from_private_bytes(b"n" * 32), ORIGIN)
    rotation = KeyRotation.made(SIGNER, new.verifier)
    body = encode_body(LEDGER_KEY_ROTATED, {"ledger": ORIGIN}, rotation.to_map())
    made.append(build_line(9, timestamp(START_NS + 10**9), body, leaf_hash(made[-1]).hex()))
    return made, new, rotation


def test_whoever_knows_the_first_key_follows() -> None:
    made, new, _ = rotated_ledger()
    leaves = [leaf_hash(line) for line in made]
    path = tuple(inclusion_path(lambda level, at: Frontier(leaves[at << level : (at + 1) << level]).root(), 9, 10))
    both = sign_checkpoint(head(made, 10), (SIGNER, new))
    knows_first = KeyHistory((SIGNER.verifier,))
    proven = Proof(9, made[9], path, both).check(knows_first)
    assert knows_first.take(proven.entry) is not None
    after = Proof(9, made[9], path, new.sign(head(made, 10)))
    assert after.check(knows_first).entry.seq == 9
    with pytest.raises(ProofError, match="does not count at size 10"):
        replace(after, note=SIGNER.sign(head(made, 10))).check(knows_first)


# --- two checkpoints


@pytest.mark.parametrize(("old", "new"), [(1, 40), (7, 8), (8, 40), (32, 33), (39, 40), (40, 40), (1, 1)])
def test_one_checkpoint_goes_on_from_another(old: int, new: int) -> None:
    made = consistent(old, new)
    assert Consistency.parse(made.encode()) == made
    before, after = made.check(note(old), KEYS)
    assert (before, after.checkpoint) == (head(LINES, old), head(LINES, new))


@pytest.mark.parametrize(
    ("wrong", "older", "message"),
    [
        (consistent(8), note(9), "goes on from size 8, and the older checkpoint is of size 9"),
        (replace(consistent(8), old=9), note(9), "does not begin with"),
        (replace(consistent(8), path=consistent(9).path), note(8), "does not begin with"),
        (consistent(8), SIGNER.sign(Checkpoint(ORIGIN, 8, bytes(32))), "does not begin with"),
        (consistent(8), signer("immured/other").sign(head(LINES, 8)), "no known key signed it"),
        (replace(consistent(40), note=note(39)), note(40), "does not begin with"),
    ],
)
def test_what_does_not_go_on_is_said(wrong: Consistency, older: bytes, message: str) -> None:
    with pytest.raises(ProofError, match=message):
        Consistency.parse(wrong.encode()).check(older, KEYS)


def test_no_flipped_bit_of_a_consistency_proof_passes() -> None:
    whole = consistent(9).encode()
    for position in range(len(whole)):
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[position] ^= 1 << bit
            with pytest.raises(ProofError):
                Consistency.parse(bytes(flipped)).check(note(9), KEYS)


# --- made from files


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A ledger's directory of three files, with checkpoints, without stored hashes."""
    parts = rotated_lines(12, 30, 9)
    folder = laid_out(tmp_path / "ledger", parts)
    whole = [line for part in parts for line in part]
    (folder / "checkpoints").mkdir()
    for size in (1, 12, 20, 42, 50):
        checkpoint = head(whole, size)
        (folder / "checkpoints" / file_name(size)).write_bytes(signer(checkpoint.origin).sign(checkpoint))
    return folder


def keys_of(folder: Path) -> KeyHistory:
    with Files.open(folder) as opened:
        first = opened.read(0, 4096).partition(b"\n")[0]
    return KeyHistory((signer(f"immured/{leaf_hash(first).hex()[:32]}").verifier,))


def test_every_entry_under_a_checkpoint_is_proven(files: Path) -> None:
    with Prover.open(files) as prover:
        for seq in range(50):
            assert prover.prove(seq).check(keys_of(files)).entry.seq == seq
        assert prover.read_all
        with pytest.raises(NoProof, match="no checkpoint covers entry 50 yet"):
            prover.prove(50)
        with pytest.raises(NoProof, match="entry 20 is not below a checkpoint of size 20"):
            prover.prove(20, prover.heads.of(20))


def test_what_witnesses_cosigned_is_preferred(files: Path) -> None:
    (files / "witnessed").mkdir()
    plain = (files / "checkpoints" / file_name(20)).read_bytes()
    with Prover.open(files) as prover:
        cosigned = add_lines(plain, [WITNESS.line(plain.partition(b"\n\n")[0] + b"\n", 1_700_000_000)])
        (files / "witnessed" / file_name(20)).write_bytes(cosigned)
        assert prover.prove(19).note == cosigned
        assert prover.prove(20).check(keys_of(files)).checkpoint.size == 50
        assert prover.heads.of(20) == cosigned


def test_consistency_between_any_two(files: Path) -> None:
    with Prover.open(files) as prover:
        for old in (1, 12, 20, 42, 50):
            prover.consistency(old).check(prover.heads.of(old), keys_of(files))
        assert prover.consistency(12, 42).check(prover.heads.of(12), keys_of(files))[1].checkpoint.size == 42
        with pytest.raises(NoProof, match="no checkpoint of size 13: those next to it are 12 and 20"):
            prover.consistency(13)
        with pytest.raises(NoProof, match="does not begin"):
            prover.consistency(42, 12)


def test_an_altered_line_has_no_proof(files: Path) -> None:
    content = (files / "current.jsonl").read_bytes()
    (files / "current.jsonl").write_bytes(content.replace(b'"s44"', b'"s99"'))
    with Prover.open(files) as prover, pytest.raises(NoProof, match="not what was signed"):
        prover.prove(44)


def test_lines_that_are_gone_have_none_and_the_rest_have(files: Path) -> None:
    keys = keys_of(files)
    (files / segment_name(0)).unlink()
    with Prover.open(files) as prover:
        with pytest.raises(NoProof, match="kept from entry 12 on"):
            prover.prove(11)
        for seq in range(12, 50):
            assert prover.prove(seq).check(keys).entry.seq == seq
        prover.consistency(12).check(prover.heads.of(12), keys)


def test_another_ledgers_hashes_are_not_believed(files: Path, tmp_path: Path) -> None:
    (files / "tree").mkdir()
    for level in range(6):
        (files / "tree" / f"{level:02d}").write_bytes(random.Random(level).randbytes(32 * 60))
    (files / "tree" / "ends").write_bytes(random.Random(9).randbytes(160))
    with Prover.open(files) as prover:
        for seq in (0, 11, 12, 30, 49):
            assert prover.prove(seq).check(keys_of(files)).entry.seq == seq
        assert prover.read_all
    shutil.rmtree(tmp_path / "ledger" / "tree")
