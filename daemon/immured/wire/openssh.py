"""Keys as OpenSSH keeps them: Ed25519 alone, and only those that sign the very bytes that they are given.

A public key is the line `ssh-ed25519 BASE64 comment` of a .pub file; its base64 holds two strings, each behind its
length (RFC 4253, 5; RFC 8709): the type's name and the 32 raw bytes. The same blob is what ssh-agent knows a key by.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from typing import Final

from immured.errors import ConfigurationError

__all__ = ["ED25519", "blob_of", "fingerprint", "line_of", "public_of", "raw_of", "seed_of", "why_not"]

ED25519: Final = "ssh-ed25519"


def blob_of(raw: bytes) -> bytes:
    """A raw public key (32 bytes) as OpenSSH encodes it."""
    return _string(ED25519.encode()) + _string(raw)


def line_of(raw: bytes, comment: str = "") -> str:
    """The line of a .pub file, without its newline."""
    return " ".join(filter(None, (ED25519, base64.b64encode(blob_of(raw)).decode(), comment)))


def fingerprint(blob: bytes) -> str:
    """`SHA256:<base64>`, as `ssh-keygen -l` and `ssh-add -l` print it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def public_of(line: bytes) -> bytes:
    """The 32 raw bytes of a .pub file. Raises ConfigurationError `bad_key`."""
    words = line.split(b"\n", 1)[0].split(None, 2)
    kind = words[0].decode("ascii", "replace") if words else ""
    if len(words) < 2 or not kind.replace("-", "").replace(".", "").replace("@", "").isalnum():
        raise _bad("no public key in it, neither PEM nor a line of OpenSSH's")
    try:
        blob = base64.b64decode(words[1], validate=True)
    except binascii.Error:
        raise _bad("the line's base64 is damaged, or it is no public key") from None
    if (found := kind_of(blob)) != kind:
        raise _bad(f"the line says {kind[:40]!r} and holds {found[:40]!r}")
    return raw_of(blob)


def kind_of(blob: bytes) -> str:
    """The type's name that a blob begins with; empty: it is none."""
    if len(blob) < 4:
        return ""
    (length,) = struct.unpack_from(">I", blob)
    return blob[4 : 4 + length].decode("ascii", "replace") if length <= 128 else ""


def raw_of(blob: bytes) -> bytes:
    """The 32 raw bytes of an encoded public key. Raises ConfigurationError `bad_key`, with the reason."""
    kind = kind_of(blob)
    if reason := why_not(kind):
        raise _bad(*reason)
    if len(blob) != len(blob_of(bytes(32))) or not blob.startswith(blob_of(b"")[:-4]):
        raise _bad("the public key is damaged")
    return blob[-32:]


def why_not(kind: str) -> tuple[str, str] | None:
    """Why a key of that type cannot sign commands, and what to do; None: it can."""
    if kind == ED25519:
        return None
    if "-cert-v" in kind:
        return (
            f"{kind} is a certificate of SSH's, which a daemon does not read",
            "name the plain key; what it may pass on, it passes on with: immure key certify",
        )
    if kind.startswith("sk-"):
        return (
            f"{kind}: a hardware key signs other bytes, with its counter and flags, and not the command itself",
            "use a plain ed25519 key for immure, in ssh-agent if it is not to lie in a file",
        )
    return (f"{kind[:64]!r} keys sign nothing here", "use an Ed25519 key: ssh-keygen -t ed25519, or immure key new")


def seed_of(pem: bytes) -> bytes:
    """The 32 secret bytes of `-----BEGIN OPENSSH PRIVATE KEY-----`. Raises ConfigurationError `bad_key`."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    try:
        key = load_ssh_private_key(pem, password=None)
    except TypeError:  # it says so of a key that wants a password
        raise _bad("the OpenSSH key has a passphrase", "let ssh-agent sign: ssh-add KEY, then --key KEY.pub") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _bad(f"the OpenSSH key cannot be read ({type(error).__name__})") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _bad("the OpenSSH key is not an Ed25519 key, or lies in hardware")
    return key.private_bytes_raw()


def _string(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def _bad(
    message: str, remedy: str = "use an Ed25519 key: immure key new, or ssh-keygen -t ed25519"
) -> ConfigurationError:
    return ConfigurationError("bad_key", message, remedy)
