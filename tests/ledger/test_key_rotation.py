"""One key of a ledger takes another's place, and the ledger says so: who counts from when on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from immured.ledger.checkpoint import Checkpoint, NoteError, Signer, sign_checkpoint
from immured.ledger.entry import Entry, build_line, encode_body, parse_line
from immured.ledger.entry_types import LEDGER_KEY_ROTATED
from immured.ledger.key_rotation import KeyHistory, KeyRotation

ORIGIN = "immured/0123"
PRIVATE = [Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in range(1, 5)]
SIGNERS = [Signer(private, ORIGIN) for private in PRIVATE]
KEYS = [signer.verifier for signer in SIGNERS]
TS = "2026-11-22T12:00:00.000000000Z"


def line(seq: int, data: dict[str, object], kind: str = LEDGER_KEY_ROTATED) -> bytes:
    return build_line(seq, TS, encode_body(kind, {"ledger": ORIGIN}, data), "0" * 64)


def entry(seq: int, data: dict[str, object]) -> Entry:
    return parse_line(line(seq, data))


def rotation(old: int, new: int) -> KeyRotation:
    return KeyRotation.made(SIGNERS[old], KEYS[new])


def head(size: int) -> Checkpoint:
    return Checkpoint(ORIGIN, size, bytes(32))


def test_it_reads_as_it_was_signed() -> None:
    made = rotation(0, 1)
    assert KeyRotation.from_map(entry(7, made.to_map()).data) == made


def test_each_key_counts_for_its_own_sizes() -> None:
    history = KeyHistory(KEYS[:1])
    history.take(entry(10, rotation(0, 1).to_map()))
    history.take(entry(20, rotation(1, 2).to_map()))
    assert history.known == tuple(KEYS[:3])
    found = {size: history.in_force(size) for size in (1, 10, 11, 20, 21, 999)}
    assert found == {1: (KEYS[0],), 10: (KEYS[0],), 11: (KEYS[1],), 20: (KEYS[1],), 21: (KEYS[2],), 999: (KEYS[2],)}


def test_a_checkpoint_is_opened_by_the_key_of_its_size() -> None:
    history = KeyHistory(KEYS[:1])
    history.take(entry(10, rotation(0, 1).to_map()))
    assert history.open(SIGNERS[0].sign(head(10))).size == 10
    assert history.open(sign_checkpoint(head(11), SIGNERS[:2])).size == 11
    assert history.open(SIGNERS[1].sign(head(12))).size == 12


@pytest.mark.parametrize(("signed_by", "size"), [(0, 11), (0, 500), (1, 10), (1, 1)])
def test_a_key_out_of_its_place_is_refused(signed_by: int, size: int) -> None:
    history = KeyHistory(KEYS[:1])
    history.take(entry(10, rotation(0, 1).to_map()))
    with pytest.raises(NoteError, match=f"does not count at size {size}"):
        history.open(SIGNERS[signed_by].sign(head(size)))


def test_a_strangers_key_is_refused_in_the_usual_words() -> None:
    history = KeyHistory(KEYS[:1])
    history.take(entry(10, rotation(0, 1).to_map()))
    with pytest.raises(NoteError, match="no known key signed it"):
        history.open(SIGNERS[3].sign(head(3)))


def test_whoever_knows_both_keys_learns_since_when() -> None:
    history = KeyHistory(KEYS[:2])
    assert history.in_force(5) == tuple(KEYS[:2])
    history.take(entry(10, rotation(0, 1).to_map()))
    assert (history.in_force(5), history.in_force(11)) == ((KEYS[0],), (KEYS[1],))


def test_a_strangers_rotation_teaches_nothing() -> None:
    history = KeyHistory(KEYS[:1])
    assert history.take(entry(10, rotation(2, 3).to_map())) is None
    assert history.known == (KEYS[0],)


def test_a_replaced_key_appoints_nobody() -> None:
    history = KeyHistory(KEYS[:1])
    history.take(entry(10, rotation(0, 1).to_map()))
    assert history.take(entry(11, rotation(0, 3).to_map())) is None
    assert KEYS[3] not in history.known


def test_no_way_back_to_a_replaced_key() -> None:
    history = KeyHistory(KEYS[:1])
    history.take(entry(10, rotation(0, 1).to_map()))
    with pytest.raises(NoteError, match="goes back"):
        history.take(entry(11, rotation(1, 0).to_map()))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"signature": bytes(64)}, "not signed by the old key"),
        ({"signature": rotation(2, 1).signature}, "not signed by the old key"),
        ({"new": KEYS[2]}, "not signed by the old key"),
        ({"old": KEYS[2]}, "not signed by the old key"),
        ({"new": Signer(PRIVATE[1], "immured/other").verifier}, "goes from immured/0123 to immured/other"),
    ],
)
def test_what_the_old_key_did_not_sign_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(NoteError, match=message):
        KeyHistory(KEYS[:1]).take(entry(10, replace(rotation(0, 1), **changed).to_map()))


@pytest.mark.parametrize("name", ["old", "new", "signature"])
def test_what_is_no_rotation_is_refused(name: str) -> None:
    whole = rotation(0, 1).to_map()
    for wrong in ({**whole, name: 1}, {**whole, name: "zz"}, {key: whole[key] for key in whole if key != name}):
        with pytest.raises(NoteError):
            KeyHistory(KEYS[:1]).take(entry(10, wrong))


def test_lines_that_were_handed_over_are_followed() -> None:
    lines = line(10, rotation(0, 1).to_map()) + b"\n" + line(20, rotation(1, 2).to_map()) + b"\n"
    history = KeyHistory(KEYS[:1])
    history.read(lines)
    assert history.in_force(30) == (KEYS[2],)


def test_handed_over_lines_that_lead_nowhere_are_refused() -> None:
    with pytest.raises(NoteError, match="rotates no key"):
        KeyHistory(KEYS[:1]).read(line(10, rotation(1, 2).to_map()))
    with pytest.raises(NoteError, match="rotates no key"):
        KeyHistory(KEYS[:1]).read(line(10, {}, "run.accepted"))
    with pytest.raises(NoteError, match=r"no ledger\.key_rotated entry"):
        KeyHistory(KEYS[:1]).read(b"{}")
