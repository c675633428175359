"""OpenSSH's own key files, made by its own ssh-keygen."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest

from immured.errors import ConfigurationError
from immured.wire import openssh
from immured.wire.keys import PrivateKey, PublicKey
from tests.patience import PATIENCE_S


def keygen(path: Path, *options: str) -> tuple[bytes, bytes]:
    """A private key's file and its .pub, as ssh-keygen writes them."""
    assert shutil.which("ssh-keygen"), "install openssh-client"
    command = ["ssh-keygen", "-q", "-f", str(path), "-C", "a comment", *options]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=PATIENCE_S)
    return path.read_bytes(), path.with_name(path.name + ".pub").read_bytes()


def ed25519(path: Path, passphrase: str = "") -> tuple[bytes, bytes]:
    return keygen(path, "-t", "ed25519", "-N", passphrase)


def test_both_halves_are_read_and_are_one_key(tmp_path: Path) -> None:
    private, public = ed25519(tmp_path / "key")
    assert PrivateKey.from_pem(private).public == PublicKey.from_pem(public)


def test_a_key_of_openssh_goes_out_as_pkcs8_and_spki(tmp_path: Path) -> None:
    private, public = ed25519(tmp_path / "key")
    key = PrivateKey.from_pem(private)
    pkcs8 = tmp_path / "key.pem"
    pkcs8.write_bytes(key.to_pem())
    spki = subprocess.run(
        ["openssl", "pkey", "-in", pkcs8, "-pubout"], check=True, capture_output=True, timeout=PATIENCE_S
    )
    assert PublicKey.from_pem(spki.stdout) == PublicKey.from_pem(public) == key.public


def test_our_line_is_openssh_s(tmp_path: Path) -> None:
    _, public = ed25519(tmp_path / "key")
    assert openssh.line_of(PublicKey.from_pem(public).raw, "a comment") == public.decode().strip()


def test_our_fingerprint_is_openssh_s(tmp_path: Path) -> None:
    _, public = ed25519(tmp_path / "key")
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(tmp_path / "key.pub")],
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert openssh.fingerprint(openssh.blob_of(PublicKey.from_pem(public).raw)) == shown.stdout.split()[1]


def test_a_passphrase_is_the_agents_to_ask_for(tmp_path: Path) -> None:
    private, _ = ed25519(tmp_path / "key", "a passphrase")
    with pytest.raises(ConfigurationError, match="passphrase") as refused:
        PrivateKey.from_pem(private)
    assert "ssh-agent" in refused.value.remedy


def test_a_key_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    private, public = keygen(tmp_path / "key", "-t", "ecdsa", "-N", "")
    with pytest.raises(ConfigurationError, match="not an Ed25519 key"):
        PrivateKey.from_pem(private)
    with pytest.raises(ConfigurationError, match="ecdsa-sha2-nistp256"):
        PublicKey.from_pem(public)


def test_a_certificate_of_ssh_is_refused_with_the_reason(tmp_path: Path) -> None:
    ed25519(tmp_path / "ca")
    ed25519(tmp_path / "key")
    command = ["ssh-keygen", "-q", "-s", str(tmp_path / "ca"), "-I", "us", str(tmp_path / "key.pub")]
    subprocess.run(command, check=True, timeout=PATIENCE_S)
    with pytest.raises(ConfigurationError, match="certificate of SSH") as refused:
        PublicKey.from_pem((tmp_path / "key-cert.pub").read_bytes())
    assert "immure key certify" in refused.value.remedy


def hardware_line() -> bytes:
    """What ssh-keygen -t ed25519-sk writes; making one takes the hardware."""
    kind = b"sk-ssh-ed25519@openssh.com"
    parts = (kind, PrivateKey(bytes(range(32))).public.raw, b"ssh:")
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return kind + b" " + base64.b64encode(blob) + b" token\n"


def test_a_hardware_key_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigurationError, match="signs other bytes"):
        PublicKey.from_pem(hardware_line())


GOOD = openssh.line_of(PrivateKey(bytes(range(32))).public.raw).encode()


@pytest.mark.parametrize(
    "line",
    [
        b"hello",
        b"ssh-ed25519",
        b"ssh-ed25519 !!!!",
        GOOD[:-8],
        GOOD[:-4],
        GOOD.replace(b"ssh-ed25519 ", b"ssh-rsa "),
        b"ssh-ed25519 " + base64.b64encode(b"\xff\xff\xff\xff"),
        b"ssh-ed25519 " + base64.b64encode(openssh.blob_of(bytes(31))),
        b"ssh-ed25519 " + base64.b64encode(openssh.blob_of(bytes(32)) + b"\0"),
        b"ssh-ed25519 " + base64.b64encode(openssh.blob_of((1).to_bytes(32, "little"))),
    ],
    ids=["a word", "no blob", "no base64", "short", "cut", "another type", "a length", "31", "more", "small order"],
)
def test_what_is_no_line_is_refused(line: bytes) -> None:
    with pytest.raises(ConfigurationError, match="bad_key"):
        PublicKey.from_pem(line)
