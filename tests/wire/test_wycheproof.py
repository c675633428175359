"""Project Wycheproof's Ed25519 vectors, and the cases that vary between implementations, asked of both verifiers."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from immured.errors import ConfigurationError
from immured.wire import keys
from immured.wire.keys import PublicKey
from tests.vectors import ed25519_arithmetic as ed
from tests.wire.vectors import load

FILE = Path(__file__).resolve().parents[1] / "vectors" / "wycheproof" / "ed25519_test.json"
WYCHEPROOF: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
CASES = [
    pytest.param(group["publicKey"]["pk"], case, id=f"{case['tcId']}-{'-'.join(case['flags'])}")
    for group in WYCHEPROOF["testGroups"]
    for case in group["tests"]
]
SMALL = [ed.encode(ed.multiply(times, ed.torsion())) for times in range(8)]


@pytest.fixture(params=["libsodium", "cryptography"])
def verifier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which library decides. Where libsodium is there it is asked first; without it, cryptography alone."""
    assert keys._sodium is not None, "build with libsodium-dev"
    if request.param == "cryptography":
        monkeypatch.setattr(keys, "_sodium", None)
    return str(request.param)


@pytest.mark.usefixtures("verifier")
@pytest.mark.parametrize(("public", "case"), CASES)
def test_the_verdict_is_wycheproofs(public: str, case: dict[str, Any]) -> None:
    key = PublicKey(bytes.fromhex(public))
    assert key.verify(bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"])) is (case["result"] == "valid")


def test_the_file_is_whole() -> None:
    results = Counter(case["result"] for group in WYCHEPROOF["testGroups"] for case in group["tests"])
    assert results == {"valid": 88, "invalid": 63}
    assert sum(results.values()) == WYCHEPROOF["numberOfTests"]


@pytest.mark.usefixtures("verifier")
@pytest.mark.parametrize("raw", SMALL, ids=range(8))
def test_a_key_of_small_order_is_no_key(raw: bytes) -> None:
    with pytest.raises(ConfigurationError, match="bad_key"):
        PublicKey(raw)


def test_for_a_key_of_small_order_anybody_could_sign() -> None:
    """What the refusal is for: cryptography by itself takes R = A = the neutral point and S = 0 for every message."""
    neutral = ed.encode(ed.NEUTRAL)
    theirs = Ed25519PublicKey.from_public_bytes(neutral)
    theirs.verify(neutral + bytes(32), b"any message")
    with pytest.raises(InvalidSignature):
        theirs.verify(ed.encode(ed.BASE) + bytes(32), b"any message")


@pytest.mark.usefixtures("verifier")
@pytest.mark.parametrize("times", range(1, 15))
def test_a_signature_cannot_be_varied_by_the_groups_order(times: int) -> None:
    """S + n L passes the equation for every n that fits into 32 bytes, and is another encoding of the same."""
    case = next(case for case in load("ed25519.json")["cases"] if case["name"] == "honest")
    public, message, signature = (bytes.fromhex(case[name]) for name in ("public", "message", "signature"))
    key, s = PublicKey(public), int.from_bytes(signature[32:], "little")
    varied = signature[:32] + (s + times * ed.L).to_bytes(32, "little")
    assert key.verify(signature, message)
    assert not key.verify(varied, message)


@pytest.mark.usefixtures("verifier")
@pytest.mark.parametrize("case", load("ed25519.json")["cases"], ids=lambda case: str(case["name"]))
def test_both_give_the_verdict_of_our_vectors(case: dict[str, Any]) -> None:
    public, message, signature = (bytes.fromhex(case[name]) for name in ("public", "message", "signature"))
    assert PublicKey(public).verify(signature, message) is case["valid"]
