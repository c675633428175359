"""Checkpoints: the tree's head at a size, signed, as C2SP writes them (c2sp.org/tlog-checkpoint, c2sp.org/signed-note).

A checkpoint is a signed note of three lines: origin, size in decimal, root in base64. Signatures are Ed25519, type
0x01. A verifier key file holds one vkey a line: `<name>+<key id, 8 hex>+<base64 of 0x01 and the raw public key>`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = [
    "Checkpoint",
    "NoteError",
    "Signer",
    "VerifierKey",
    "file_name",
    "open_checkpoint",
    "open_note",
    "origin_of",
    "parse_vkeys",
]

_ED25519: Final = 0x01
_MAX_NOTE: Final = 65_536
_MAX_SIGNATURES: Final = 64
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,15}")
# Spaces of any kind, plus signs and controls would make a note ambiguous.
_NAME: Final = re.compile(r"[^\s+\x00-\x1f\x7f]+")


class NoteError(ValueError):
    """A note, a checkpoint or a verifier key that is not what its format says, or that no known key signed."""


def origin_of(first_leaf: bytes) -> str:
    """The ledger's name, origin and key name alike: `immured/` and the first 32 hex digits of line 0's leaf hash."""
    return f"immured/{first_leaf.hex()[:32]}"


def file_name(size: int) -> str:
    """The checkpoint's file for a tree of `size` entries: 20 digits, so that names sort as sizes do."""
    return f"{size:020d}"


def _b64(text: str, what: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NoteError(f"{what} is not base64") from None
    if base64.b64encode(raw).decode() != text:
        raise NoteError(f"{what} is base64 with stray bits")
    return raw


def _key_id(name: str, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([_ED25519]) + public).digest()[:4]


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key that may sign a ledger's checkpoints: key name and 32 raw bytes."""

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        """4 bytes: a hint that selects the key, never trusted."""
        return _key_id(self.name, self.public)

    def encode(self) -> str:
        """The vkey, without a newline."""
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(bytes([_ED25519]) + self.public).decode()}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Read a vkey. Raises NoteError."""
        name, _, rest = text.partition("+")
        key_id, _, encoded = rest.partition("+")
        if _NAME.fullmatch(name) is None:
            raise NoteError(f"the verifier key's name {name[:64]!r} is empty, or has spaces in it")
        raw = _b64(encoded, "the verifier key")
        if len(raw) != 33 or raw[0] != _ED25519:
            raise NoteError("the verifier key is not an Ed25519 one (type 0x01 and 32 bytes)")
        key = cls(name, raw[1:])
        if key.key_id.hex() != key_id:
            raise NoteError(f"the verifier key's id is {key_id[:16]!r}, but name and bytes give {key.key_id.hex()!r}")
        return key

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` (64 bytes) is this key's over `message`."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


def parse_vkeys(text: str) -> tuple[VerifierKey, ...]:
    """Every vkey of a key file, one a line; empty lines and lines that begin with `#` are skipped. Raises NoteError."""
    lines = (line.strip() for line in text.splitlines())
    return tuple(VerifierKey.parse(line) for line in lines if line and not line.startswith("#"))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The tree's head: `root` (32 bytes) over the first `size` entries of the ledger named `origin`."""

    origin: str
    size: int
    root: bytes

    def text(self) -> bytes:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n".encode()


class Signer:
    """The private half: signs checkpoints under a key name."""

    def __init__(self, private: Ed25519PrivateKey, name: str) -> None:
        self._private = private
        public = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.verifier = VerifierKey(name, public)

    def sign(self, checkpoint: Checkpoint) -> bytes:
        """The signed note: the content of a checkpoint file."""
        text = checkpoint.text()
        signature = base64.b64encode(self.verifier.key_id + self._private.sign(text)).decode()
        return text + f"\n\u2014 {self.verifier.name} {signature}\n".encode()


def _split(note: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    if len(note) > _MAX_NOTE:
        raise NoteError(f"the note is over {_MAX_NOTE} bytes")
    try:
        whole = note.decode()
    except UnicodeDecodeError:
        raise NoteError("the note is not UTF-8") from None
    if any(ch < " " and ch != "\n" for ch in whole):
        raise NoteError("the note has control characters")
    cut = whole.rfind("\n\n")
    if cut < 0 or not whole.endswith("\n") or cut + 2 == len(whole):
        raise NoteError("the note has no signatures after a blank line")
    text, lines = whole[: cut + 1], whole[cut + 2 : -1].split("\n")
    if len(lines) > _MAX_SIGNATURES:
        raise NoteError(f"the note has over {_MAX_SIGNATURES} signatures")
    signatures: list[tuple[str, bytes]] = []
    for line in lines:
        dash, _, rest = line.partition(" ")
        name, _, encoded = rest.partition(" ")
        if dash != "\u2014" or _NAME.fullmatch(name) is None:
            raise NoteError("a signature line is not of the form `\u2014 name base64`")
        raw = _b64(encoded, "a signature")
        if len(raw) < 5:
            raise NoteError("a signature is too short")
        signatures.append((name, raw))
    return text.encode(), signatures


def _parse_text(text: bytes) -> Checkpoint:
    lines = text.decode().split("\n")[:-1]
    if len(lines) != 3 or not lines[0]:
        raise NoteError("the checkpoint is not of three lines: origin, size, root")
    origin, size, root_text = lines
    if _SIZE.fullmatch(size) is None:
        raise NoteError(f"the checkpoint's size {size[:32]!r} is not a decimal number")
    root = _b64(root_text, "the checkpoint's root")
    if len(root) != 32:
        raise NoteError("the checkpoint's root is not of 32 bytes")
    return Checkpoint(origin, int(size), root)


def open_note(note: bytes, keys: Iterable[VerifierKey]) -> bytes:
    """The text of a signed note. Raises NoteError.

    Signatures of keys that are not in `keys` are ignored; one of a key that is must verify, and there must be one.
    """
    text, signatures = _split(note)
    known = {(key.name, key.key_id): key for key in keys}
    signed = False
    for name, raw in signatures:
        key = known.get((name, raw[:4]))
        if key is None:
            continue
        if not key.verify(raw[4:], text):
            raise NoteError(f"the signature of {name} does not verify")
        signed = True
    if not signed:
        raise NoteError("no known key signed it")
    return text


def open_checkpoint(note: bytes, keys: Iterable[VerifierKey]) -> Checkpoint:
    """Verify and read a checkpoint, as `open_note` does. Raises NoteError.

    Whether it is of the ledger at hand (origin, root) is the caller's to check.
    """
    return _parse_text(open_note(note, keys))
