"""Keys as files, and what the library alone would let through."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from immured.errors import ConfigurationError
from immured.wire import keys
from immured.wire.keys import PrivateKey, PublicKey
from tests.patience import PATIENCE_S

SEED = bytes(range(32))
PKCS8_V2 = "3072020101300506032b657004220420{seed}a01f301d060a2a864886f70d01090914310f0c0d437572646c6520436861697273"


def pem_of(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey, secret: bytes | None = None) -> bytes:
    protection = BestAvailableEncryption(secret) if secret else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection)


def test_our_private_pem_is_the_library_s_own() -> None:
    theirs = ed25519.Ed25519PrivateKey.from_private_bytes(SEED)
    assert PrivateKey.from_pem(pem_of(theirs)).id == PrivateKey(SEED).id


def test_a_key_made_by_openssl_is_read(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(path)], check=True, timeout=PATIENCE_S)
    public = subprocess.run(
        ["openssl", "pkey", "-in", str(path), "-pubout"], check=True, capture_output=True, timeout=PATIENCE_S
    )
    assert PrivateKey.from_pem(path.read_bytes()).public == PublicKey.from_pem(public.stdout)


def test_an_encrypted_key_says_how_to_decrypt_it() -> None:
    pem = pem_of(ed25519.Ed25519PrivateKey.generate(), b"secret")
    with pytest.raises(ConfigurationError) as refused:
        PrivateKey.from_pem(pem)
    assert "openssl pkey" in refused.value.remedy


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN PRIVATE KEY-----\n",
        b"-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        pem_of(ec.generate_private_key(ec.SECP256R1())),
    ],
    ids=["empty", "cut short", "no base64", "no key", "another algorithm"],
)
def test_what_is_no_private_key_is_refused(pem: bytes) -> None:
    with pytest.raises(ConfigurationError, match="bad_key"):
        PrivateKey.from_pem(pem)


def test_a_private_key_does_not_print_itself() -> None:
    assert SEED.hex() not in repr(PrivateKey(SEED)) + str(vars(type("", (), {"key": PrivateKey(SEED)})))


def test_public_keys_compare_by_their_bytes() -> None:
    key = PrivateKey(SEED).public
    assert {key: 1}[PublicKey(key.raw)] == 1


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=300), st.integers(0, 511))
def test_with_and_without_libsodium_the_verdicts_are_the_same(seed: bytes, message: bytes, flipped: int) -> None:
    assert keys._sodium is not None, "build with libsodium-dev"
    private = PrivateKey(seed)
    signature = private.sign(message)
    damaged = bytearray(signature)
    damaged[flipped // 8] ^= 1 << flipped % 8
    cases = [(signature, message), (bytes(damaged), message), (signature, message + b"!")]
    taken = [private.public.verify(*case) for case in cases]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "_sodium", None)
        plain = PrivateKey(seed)
        assert plain.sign(message) == signature
        assert [plain.public.verify(*case) for case in cases] == taken == [True, False, False]


def test_what_libsodium_alone_refuses_is_taken_as_the_rfc_says() -> None:
    """R of small order, with S = k * a: the equation holds, and no signer makes one."""
    order = 2**252 + 27742317777372353535851937790883648493
    private = PrivateKey(bytes(range(32)))
    digest = bytearray(hashlib.sha512(bytes(range(32))).digest()[:32])
    digest[0] &= 248
    digest[31] = digest[31] & 127 | 64
    scalar = int.from_bytes(digest, "little")
    neutral = (1).to_bytes(32, "little")
    k = int.from_bytes(hashlib.sha512(neutral + private.public.raw + b"m").digest(), "little")
    signature = neutral + (k * scalar % order).to_bytes(32, "little")
    assert keys._sodium is not None
    assert not keys._sodium.verify(signature, b"m", private.public.raw)
    assert private.public.verify(signature, b"m")
