"""Detached signatures: what a file of them is, and over what each is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from immured.errors import Refused
from immured.manifest import signature as signatures
from immured.manifest.signature import parse_signatures, show_signatures, sign, verify
from immured.wire.keys import PrivateKey, PublicKey

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "manifest" / "signatures.json").read_text("utf-8"))
KEYS = {one["id"]: PublicKey(bytes.fromhex(one["public"])) for one in VECTORS["keys"]}
GOOD = [one for one in VECTORS["cases"] if "signatures" in one]
BAD = [one for one in VECTORS["cases"] if "refused" in one]
KEY = PrivateKey(bytes([7]) * 32)
RAW = b'schema = 1\nname = "build"\n'
NOW = 1_790_000_000_000
DAY = 86_400_000


def named(case: dict[str, Any]) -> str:
    return str(case["name"])


@pytest.mark.parametrize("case", GOOD, ids=named)
def test_a_file_that_is_taken(case: dict[str, Any]) -> None:
    found = parse_signatures(case["text"])
    raw = bytes.fromhex(case["manifest"])
    assert [
        {
            "key": one.key_id,
            "signed_ms": one.signed_ms,
            "expires_ms": one.expires_ms,
            "verifies": verify(one, KEYS[one.key_id], raw),
        }
        for one in found
    ] == case["signatures"]
    assert show_signatures(found) == case["text"]
    assert parse_signatures(case["text"].encode()) == found


@pytest.mark.parametrize("case", BAD, ids=named)
def test_a_file_that_is_refused(case: dict[str, Any]) -> None:
    for text in (case["text"], case["text"].encode()):
        with pytest.raises(Refused) as refused:
            parse_signatures(text)
        assert refused.value.code == "signature_invalid"
        if isinstance(text, bytes):
            assert refused.value.details == case["refused"]


def test_what_is_signed_here_is_what_the_vectors_say() -> None:
    case = next(one for one in GOOD if one["name"] == "one key")
    raw = bytes.fromhex(case["manifest"])
    made = sign(KEY, raw, NOW, NOW + signatures.DEFAULT_LIFE_MS)
    assert show_signatures([made]) == case["text"]


def test_every_other_byte_of_the_file_is_refused_or_does_not_verify() -> None:
    text = show_signatures([sign(KEY, RAW, NOW, NOW + DAY)]).encode()
    for place in range(len(text)):
        for bit in range(8):
            other = bytearray(text)
            other[place] ^= 1 << bit
            assert not verifies(bytes(other)), (place, bit)


def verifies(text: bytes) -> bool:
    try:
        found = parse_signatures(text)
    except Refused:
        return False
    return any(verify(one, KEY.public, RAW) for one in found)


def test_every_other_byte_of_the_manifest_does_not_verify() -> None:
    made = sign(KEY, RAW, NOW, NOW + DAY)
    for place in range(len(RAW)):
        for bit in range(8):
            other = bytearray(RAW)
            other[place] ^= 1 << bit
            assert not verify(made, KEY.public, bytes(other))
    assert not verify(made, KEY.public, RAW + b"\n")
    assert not verify(made, KEY.public, RAW[:-1])


def test_a_signature_of_a_command_is_none_of_a_manifest() -> None:
    from immured.wire.envelope import pae

    raw = KEY.sign(pae("application/vnd.immured.command.v1+msgpack", RAW))
    assert not verify(signatures.Signature(KEY.id, NOW, NOW + DAY, raw), KEY.public, RAW)


@pytest.mark.parametrize(
    ("since", "until"),
    [(NOW, NOW), (NOW, NOW - 1), (NOW, NOW + 366 * DAY + 1), (-1, NOW), (2**53 - 1, 2**53)],
    ids=["no time", "backwards", "too long", "before the epoch", "too late"],
)
def test_times_that_no_reader_takes_are_not_signed(since: int, until: int) -> None:
    with pytest.raises(Refused) as refused:
        sign(KEY, RAW, since, until)
    assert refused.value.code == "signature_invalid"


def test_a_signature_has_its_time() -> None:
    made = sign(KEY, RAW, NOW, NOW + DAY)
    assert [made.early(now) for now in (NOW - 60_001, NOW - 60_000, NOW)] == [True, False, False]
    assert [made.expired(now) for now in (NOW + DAY - 1, NOW + DAY)] == [False, True]


def test_eight_of_the_longest_lines_fit() -> None:
    last = 2**53 - 1
    made = [sign(PrivateKey(bytes([n]) * 32), RAW, last - DAY, last) for n in range(8)]
    assert parse_signatures(show_signatures(made)) == tuple(made)
