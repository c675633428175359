"""Cosignatures: that a witness saw a checkpoint, and when; how many of those that one knows are enough."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from immured.ledger.checkpoint import (
    Checkpoint,
    Cosigner,
    CosignKey,
    NoteError,
    VerifierKey,
    Witnessed,
    add_lines,
    open_checkpoint,
    open_witnessed,
    parse_witness_keys,
)
from tests.ledger.sample import signer

HEAD = Checkpoint("immured/0123", 42, bytes(range(32)))
LOG = signer("immured/0123")
NOTE = LOG.sign(HEAD)
LOG_KEYS = (LOG.verifier,)
TEXT = HEAD.text()


def witness(name: str, seed: int) -> Cosigner:
    return Cosigner(Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32), name)


FIRST, SECOND, THIRD = (witness(f"w{n}.example", n) for n in (1, 2, 3))
KEYS = (FIRST.verifier, SECOND.verifier, THIRD.verifier)
COSIGNED = add_lines(NOTE, [FIRST.line(TEXT, 1_700_000_000), SECOND.line(TEXT, 1_700_000_001)])


def opened(note: bytes, require: int = 0, keys: tuple[CosignKey, ...] = KEYS) -> Witnessed:
    return open_witnessed(note, LOG_KEYS, keys, require)


def test_who_cosigned_and_when() -> None:
    found = opened(COSIGNED, 2)
    assert found.checkpoint == HEAD
    assert [(one.key, one.time_s) for one in found.cosignatures] == [
        (FIRST.verifier, 1_700_000_000),
        (SECOND.verifier, 1_700_000_001),
    ]


def test_what_is_signed_is_as_the_specification_has_it() -> None:
    # c2sp.org/tlog-cosignature: a header line, a time line, the note's text; eight bytes of time before the signature.
    _, name, encoded = FIRST.line(TEXT, 1_679_315_147).decode().split(" ")
    raw = base64.b64decode(encoded)
    expected_id = hashlib.sha256(b"w1.example\n\x04" + FIRST.verifier.public).digest()[:4]
    assert (name, raw[:4], raw[4:12]) == ("w1.example", expected_id, bytes.fromhex("00000000641850cb"))
    private = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
    private.public_key().verify(raw[12:], b"cosignature/v1\ntime 1679315147\n" + TEXT)


def test_a_cosigned_note_is_still_the_ledgers_checkpoint() -> None:
    assert open_checkpoint(COSIGNED, LOG_KEYS) == HEAD


def test_a_cosignature_is_none_of_the_ledgers_own() -> None:
    alone = TEXT + b"\n" + FIRST.line(TEXT, 1)
    with pytest.raises(NoteError, match="no known key signed it"):
        opened(alone)
    same_key = VerifierKey(FIRST.verifier.name, FIRST.verifier.public)
    with pytest.raises(NoteError, match="no known key signed it"):
        open_witnessed(alone, [same_key], KEYS)


@pytest.mark.parametrize("require", [3, 4])
def test_too_few_witnesses(require: int) -> None:
    with pytest.raises(NoteError, match=f"2 known witnesses cosigned it, {require} are required"):
        opened(COSIGNED, require)


def test_unknown_witnesses_do_not_count() -> None:
    with pytest.raises(NoteError, match="1 known witnesses cosigned it, 2 are required"):
        opened(COSIGNED, 2, (FIRST.verifier, THIRD.verifier))
    assert len(opened(COSIGNED, 1, (FIRST.verifier,)).cosignatures) == 1


def test_one_key_under_two_names_is_one_witness() -> None:
    other = witness("other.example", 1)
    note = add_lines(NOTE, [FIRST.line(TEXT, 5), other.line(TEXT, 5)])
    with pytest.raises(NoteError, match="1 known witnesses"):
        opened(note, 2, (FIRST.verifier, other.verifier))


def test_one_witness_twice_is_one_with_its_latest_time() -> None:
    note = add_lines(NOTE, [FIRST.line(TEXT, 7), FIRST.line(TEXT, 9), FIRST.line(TEXT, 8)])
    (only,) = opened(note, 1).cosignatures
    assert only.time_s == 9


def test_a_known_witnesss_bad_cosignature_refuses_the_whole() -> None:
    for position in range(len(COSIGNED) - 80, len(COSIGNED)):
        for bit in range(8):
            flipped = bytearray(COSIGNED)
            flipped[position] ^= 1 << bit
            with pytest.raises(NoteError):
                opened(bytes(flipped), 2)


def test_a_cosignature_of_another_text_is_none_of_this() -> None:
    other = Checkpoint(HEAD.origin, HEAD.size + 1, HEAD.root).text()
    with pytest.raises(NoteError, match=r"the cosignature of w1\.example does not verify"):
        opened(add_lines(NOTE, [FIRST.line(other, 1)]))


@pytest.mark.parametrize("time_s", [-1, 2**63])
def test_a_time_that_no_cosignature_has(time_s: int) -> None:
    with pytest.raises(ValueError, match="is no time"):
        FIRST.line(TEXT, time_s)


def test_a_time_beyond_all_is_refused_though_it_was_signed() -> None:
    private = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
    signature = private.sign(f"cosignature/v1\ntime {2**63}\n".encode() + TEXT)
    assert FIRST.verifier.time_of((2**63).to_bytes(8, "big") + signature, TEXT) is None


def test_a_line_is_not_added_twice() -> None:
    lines = [FIRST.line(TEXT, 1_700_000_000)]
    assert add_lines(COSIGNED, lines) == COSIGNED
    assert add_lines(NOTE, lines * 2).count(lines[0]) == 1


def test_a_witnesss_key_reads_back() -> None:
    encoded = FIRST.verifier.encode()
    assert CosignKey.parse(encoded) == FIRST.verifier
    assert parse_witness_keys(f"# ours\n\n{encoded}\n") == (FIRST.verifier,)


def test_a_ledgers_key_is_no_witnesss_and_the_other_way_round() -> None:
    with pytest.raises(NoteError, match="not a witness's"):
        CosignKey.parse(LOG.verifier.encode())
    with pytest.raises(NoteError, match="not an Ed25519 one"):
        VerifierKey.parse(FIRST.verifier.encode())
