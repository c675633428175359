"""The keys that sign notes, in two ways: Ed25519 over the text (type 0x01, c2sp.org/signed-note), and a witness's
cosignature with the time that it was given (type 0x04, c2sp.org/tlog-cosignature).

A key's textual form, a vkey, is one line: `<name>+<key id, 8 hex>+<base64 of the type and the raw public key>`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = [
    "NAME",
    "CosignKey",
    "Cosigner",
    "NoteError",
    "VerifierKey",
    "by_hint",
    "parse_vkeys",
    "parse_witness_keys",
    "public_of",
    "signature_line",
    "strict_b64",
]

_ED25519: Final = 0x01
_COSIGNATURE: Final = 0x04
_MAX_TIME: Final = 253_402_300_799  # the year 9999: a moment that can be written down
NAME: Final = re.compile(r"[^\s+\x00-\x1f\x7f]+")
"""A key's name: spaces of any kind, plus signs and controls would make a note ambiguous."""


class NoteError(ValueError):
    """A note, a checkpoint or a verifier key that is not what its format says, or that no known key signed."""


def strict_b64(text: str, what: str) -> bytes:
    """Standard base64 with its padding, in the one form that it has. Raises NoteError."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NoteError(f"{what} is not base64") from None
    if base64.b64encode(raw).decode() != text:
        raise NoteError(f"{what} is base64 with stray bits")
    return raw


def public_of(private: Ed25519PrivateKey) -> bytes:
    """The 32 raw bytes of its public half."""
    return private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def _key_id(name: str, kind: int, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:4]


def _encode(name: str, kind: int, public: bytes) -> str:
    encoded = base64.b64encode(bytes([kind]) + public).decode()
    return f"{name}+{_key_id(name, kind, public).hex()}+{encoded}"


def _parse(text: str, kind: int, what: str) -> tuple[str, bytes]:
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    if NAME.fullmatch(name) is None:
        raise NoteError(f"the verifier key's name {name[:64]!r} is empty, or has spaces in it")
    raw = strict_b64(encoded, "the verifier key")
    if len(raw) != 33 or raw[0] != kind:
        raise NoteError(f"the verifier key is not {what} (type 0x{kind:02x} and 32 bytes)")
    expected = _key_id(name, kind, raw[1:]).hex()
    if expected != key_id:
        raise NoteError(f"the verifier key's id is {key_id[:16]!r}, but name and bytes give {expected!r}")
    return name, raw[1:]


def _is_signed(public: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key that may sign a ledger's checkpoints: key name and 32 raw bytes."""

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        """4 bytes: a hint that selects the key, never trusted."""
        return _key_id(self.name, _ED25519, self.public)

    def encode(self) -> str:
        """The vkey, without a newline."""
        return _encode(self.name, _ED25519, self.public)

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Read a vkey. Raises NoteError."""
        return cls(*_parse(text, _ED25519, "an Ed25519 one"))

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` (64 bytes) is this key's over `message`."""
        return _is_signed(self.public, signature, message)


@dataclass(frozen=True, slots=True)
class CosignKey:
    """A witness's public key: key name and 32 raw bytes. It signs that it saw a checkpoint, and when."""

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        """4 bytes: a hint that selects the key, never trusted."""
        return _key_id(self.name, _COSIGNATURE, self.public)

    def encode(self) -> str:
        """The vkey, without a newline."""
        return _encode(self.name, _COSIGNATURE, self.public)

    @classmethod
    def parse(cls, text: str) -> CosignKey:
        """Read a vkey. Raises NoteError."""
        return cls(*_parse(text, _COSIGNATURE, "a witness's"))

    def time_of(self, signature: bytes, text: bytes) -> int | None:
        """When it cosigned `text` (a note's, with its last newline), in seconds since 1970; None where `signature`
        (8 bytes of time, 64 of Ed25519) is not this key's over it."""
        time_s = int.from_bytes(signature[:8], "big")
        if len(signature) != 72 or time_s > _MAX_TIME:
            return None
        return time_s if _is_signed(self.public, signature[8:], _cosigned(text, time_s)) else None


def _cosigned(text: bytes, time_s: int) -> bytes:
    return f"cosignature/v1\ntime {time_s}\n".encode() + text


_Key = TypeVar("_Key", VerifierKey, CosignKey)


def _lines_of(text: str) -> Iterator[str]:
    lines = (line.strip() for line in text.splitlines())
    return (line for line in lines if line and not line.startswith("#"))


def parse_vkeys(text: str) -> tuple[VerifierKey, ...]:
    """Every vkey of a key file, one a line; empty lines and lines that begin with `#` are skipped. Raises NoteError."""
    return tuple(map(VerifierKey.parse, _lines_of(text)))


def parse_witness_keys(text: str) -> tuple[CosignKey, ...]:
    """The same for a file of witnesses' keys. Raises NoteError."""
    return tuple(map(CosignKey.parse, _lines_of(text)))


def signature_line(key: VerifierKey | CosignKey, signature: bytes) -> bytes:
    """The line of a note, with its newline, that holds this key's signature."""
    return f"\u2014 {key.name} {base64.b64encode(key.key_id + signature).decode()}\n".encode()


class Cosigner:
    """The private half of a witness's key. What it promises by signing is its caller's to keep."""

    def __init__(self, private: Ed25519PrivateKey, name: str) -> None:
        self._private = private
        self.verifier = CosignKey(name, public_of(private))

    def line(self, text: bytes, time_s: int) -> bytes:
        """The cosignature line, with its newline, of a checkpoint's text at a time (seconds since 1970)."""
        if not 0 <= time_s <= _MAX_TIME:
            raise ValueError(f"{time_s} is no time that a cosignature can have")
        signature = time_s.to_bytes(8, "big") + self._private.sign(_cosigned(text, time_s))
        return signature_line(self.verifier, signature)


def by_hint(keys: Iterable[_Key]) -> dict[tuple[str, bytes], _Key]:
    """Keys by what a signature line has of them."""
    return {(key.name, key.key_id): key for key in keys}
