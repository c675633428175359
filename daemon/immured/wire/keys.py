"""Ed25519 as RFC 8032 says it, strictly: one signature per message and key that no third party can vary.

`cryptography` does the arithmetic; where libsodium was there to build with, that does it in less than half the time.
What libsodium takes is taken; it refuses a few that the RFC takes, so its refusal is asked again. What the RFC leaves
open is decided here: S < L; A and R are canonical encodings; A is a point of the curve and not of small order. What
concerns the key alone is checked once, when it is loaded.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from importlib import import_module
from types import ModuleType
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from immured.errors import ConfigurationError

__all__ = ["PrivateKey", "PublicKey", "Signer", "key_id"]

_sodium: ModuleType | None
try:
    _sodium = import_module("immured._sodium")
except ImportError:  # built without it, or it is gone since
    _sodium = None

_P: Final = 2**255 - 19
_L: Final = 2**252 + 27742317777372353535851937790883648493
_D: Final = -121665 * pow(121666, -1, _P) % _P
_SIGN: Final = 1 << 255

# DER around the 32 raw bytes: SubjectPublicKeyInfo, and PKCS#8 version 1 with id-Ed25519 (RFC 8410).
_SPKI: Final = bytes.fromhex("302a300506032b6570032100")
_PKCS8: Final = bytes.fromhex("302e020100300506032b657004220420")


def key_id(raw_public: bytes) -> str:
    """`ed25519:` and the first 32 hex digits of SHA-256 of the 32 raw bytes."""
    return "ed25519:" + hashlib.sha256(raw_public).hexdigest()[:32]


class PublicKey:
    """A key that may verify. `raw` is 32 bytes. Raises ConfigurationError `bad_key` for anything that is not a
    canonical point of large order."""

    __slots__ = ("_key", "id", "raw")

    def __init__(self, raw: bytes) -> None:
        _check_point(raw)
        self.raw: Final = bytes(raw)
        self.id: Final = key_id(raw)
        self._key: Final = Ed25519PublicKey.from_public_bytes(self.raw)

    @classmethod
    def from_pem(cls, pem: bytes) -> PublicKey:
        """From `-----BEGIN PUBLIC KEY-----` (SPKI), or a line of OpenSSH's. Raises ConfigurationError `bad_key`."""
        if b"-----BEGIN " not in pem and pem.strip():
            from immured.wire import openssh

            return cls(openssh.public_of(pem))
        der = _unarmour(pem, b"PUBLIC KEY")
        if len(der) != len(_SPKI) + 32 or not der.startswith(_SPKI):
            raise _bad("the public key is not an Ed25519 key in SPKI form")
        return cls(der[len(_SPKI) :])

    def to_pem(self) -> bytes:
        """SPKI PEM."""
        return _armour(_SPKI + self.raw, b"PUBLIC KEY")

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` (64 bytes) is the one of `message` under this key."""
        if len(signature) != 64 or int.from_bytes(signature[32:], "little") >= _L:
            return False
        if not _canonical(int.from_bytes(signature[:32], "little")):
            return False
        if _sodium is not None and _sodium.verify(signature, message, self.raw):
            return True
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"PublicKey({self.id})"


class Signer(Protocol):
    """Who signs: a private key, or an agent that holds one."""

    @property
    def public(self) -> PublicKey:
        """The public half."""

    @property
    def id(self) -> str:
        """The key id of the public half."""

    def sign(self, message: bytes) -> bytes:
        """64 bytes: the Ed25519 signature of these very bytes."""


class PrivateKey:
    """A key that signs. Its repr shows the key id alone."""

    __slots__ = ("_key", "_secret", "public")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != 32:
            raise _bad(f"an Ed25519 private key is 32 bytes, not {len(seed)}")
        self._key: Final = Ed25519PrivateKey.from_private_bytes(seed)
        self._secret: Final[bytes | None] = None if _sodium is None else _sodium.secret_key(seed)
        self.public: Final = PublicKey(self._key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> PrivateKey:
        """A new key from the system's randomness."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def from_pem(cls, pem: bytes) -> PrivateKey:
        """From `-----BEGIN PRIVATE KEY-----` (PKCS#8) or OpenSSH's form, neither encrypted.

        Raises ConfigurationError `bad_key`.
        """
        if b"-----BEGIN OPENSSH PRIVATE KEY-----" in pem:
            from immured.wire import openssh

            return cls(openssh.seed_of(pem))
        if b"ENCRYPTED PRIVATE KEY" in pem:
            raise _bad("the private key is encrypted", "decrypt it: openssl pkey -in KEY -out PLAIN; chmod 600 PLAIN")
        der = _unarmour(pem, b"PRIVATE KEY")
        if len(der) == len(_PKCS8) + 32 and der.startswith(_PKCS8):
            return cls(der[len(_PKCS8) :])
        return cls(_other_pkcs8(der))

    def to_pem(self) -> bytes:
        """PKCS#8 PEM, not encrypted: keep it in a file of mode 0600."""
        return _armour(_PKCS8 + self._key.private_bytes_raw(), b"PRIVATE KEY")

    @property
    def id(self) -> str:
        """The key id of the public half."""
        return self.public.id

    def sign(self, message: bytes) -> bytes:
        """64 bytes, the same for the same message."""
        if _sodium is None or self._secret is None:
            return self._key.sign(message)
        signature: bytes = _sodium.sign(message, self._secret)
        return signature

    def __repr__(self) -> str:
        return f"PrivateKey({self.id})"


def _canonical(encoding: int) -> bool:
    """Whether a little-endian point encoding has y < p, and no sign where x is 0 (there y is 1 or -1)."""
    y = encoding & ~_SIGN
    return y < _P and not (encoding & _SIGN and y in (1, _P - 1))


def _check_point(raw: bytes) -> None:
    if len(raw) != 32:
        raise _bad(f"an Ed25519 public key is 32 bytes, not {len(raw)}")
    encoding = int.from_bytes(raw, "little")
    if not _canonical(encoding):
        raise _bad("the public key is not a canonical encoding")
    y = encoding & ~_SIGN
    x_squared = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    if x_squared and pow(x_squared, (_P - 1) // 2, _P) != 1:
        raise _bad("the public key is not a point of the curve")
    for _ in range(3):
        # y of the doubled point; doubling thrice leads a point of small order (1, 2, 4, 8) to the neutral one, y = 1.
        # On the curve d x² y² = y² - x² - 1, so that y(2P) = (y² + x²) / (1 - d x² y²) = (y² + x²) / (2 + x² - y²).
        y, x_squared = _double(y, x_squared)
    if y == 1:
        raise _bad("the public key is of small order: anybody can sign for it")


def _double(y: int, x_squared: int) -> tuple[int, int]:
    y_squared = y * y % _P
    doubled = (y_squared + x_squared) * pow(2 + x_squared - y_squared, -1, _P) % _P
    squared = doubled * doubled % _P
    return doubled, (squared - 1) * pow(_D * squared + 1, -1, _P) % _P


def _other_pkcs8(der: bytes) -> bytes:
    """PKCS#8 version 2, or with attributes, as other tools write it."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    try:
        key = load_der_private_key(der, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _bad(f"the private key cannot be read ({type(error).__name__})") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _bad("the private key is not an Ed25519 key")
    return key.private_bytes_raw()


def _armour(der: bytes, label: bytes) -> bytes:
    return b"-----BEGIN %s-----\n%s\n-----END %s-----\n" % (label, base64.b64encode(der), label)


def _unarmour(pem: bytes, label: bytes) -> bytes:
    begin, end = b"-----BEGIN %s-----" % label, b"-----END %s-----" % label
    _, found, rest = pem.partition(begin)
    body, closed, _ = rest.partition(end)
    if not found or not closed:
        raise _bad(f"no {begin.decode()} in it", "make one with: immure key new, or openssl genpkey -algorithm ed25519")
    try:
        return base64.b64decode(b"".join(body.split()), validate=True)
    except binascii.Error:
        raise _bad("the PEM's base64 is damaged") from None


def _bad(message: str, remedy: str = "use an Ed25519 key: immure key new") -> ConfigurationError:
    return ConfigurationError("bad_key", message, remedy)
