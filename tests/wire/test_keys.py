"""Keys as files, and what the library alone would let through."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from immured.errors import ConfigurationError
from immured.wire.keys import PrivateKey, PublicKey

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
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(path)], check=True, timeout=30)
    public = subprocess.run(
        ["openssl", "pkey", "-in", str(path), "-pubout"], check=True, capture_output=True, timeout=30
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
