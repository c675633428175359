"""Checkpoints: the tree's head at a size, signed, as C2SP writes them (c2sp.org/tlog-checkpoint, c2sp.org/signed-note).

A checkpoint is a signed note of three lines: origin, size in decimal, root in base64. The ledger's own keys sign it
(type 0x01), and witnesses cosign it (type 0x04, c2sp.org/tlog-cosignature); note_keys has both.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from immured.ledger.note_keys import (
    NAME,
    Cosigner,
    CosignKey,
    NoteError,
    VerifierKey,
    by_hint,
    parse_vkeys,
    parse_witness_keys,
    public_of,
    signature_line,
    strict_b64,
)

__all__ = [
    "Checkpoint",
    "CosignKey",
    "Cosignature",
    "Cosigner",
    "NoteError",
    "Signer",
    "VerifierKey",
    "Witnessed",
    "add_lines",
    "file_name",
    "open_checkpoint",
    "open_note",
    "open_witnessed",
    "origin_of",
    "parse_checkpoint",
    "parse_vkeys",
    "parse_witness_keys",
    "sign_checkpoint",
    "unverified",
]

_MAX_NOTE: Final = 65_536
_MAX_SIGNATURES: Final = 64
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,15}")


def origin_of(first_leaf: bytes) -> str:
    """The ledger's name, origin and key name alike: `immured/` and the first 32 hex digits of line 0's leaf hash."""
    return f"immured/{first_leaf.hex()[:32]}"


def file_name(size: int) -> str:
    """The checkpoint's file for a tree of `size` entries: 20 digits, so that names sort as sizes do."""
    return f"{size:020d}"


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
    """The private half of a ledger's key: signs checkpoints under a key name."""

    def __init__(self, private: Ed25519PrivateKey, name: str) -> None:
        self._private = private
        self.verifier = VerifierKey(name, public_of(private))

    def line(self, text: bytes) -> bytes:
        """The signature line, with its newline, to stand below `text`."""
        return signature_line(self.verifier, self._private.sign(text))

    def raw(self, message: bytes) -> bytes:
        """The bare signature of a message that is no note, 64 bytes. The message says what it is: see `pae`."""
        return self._private.sign(message)

    def sign(self, checkpoint: Checkpoint) -> bytes:
        """The signed note: the content of a checkpoint file."""
        return sign_checkpoint(checkpoint, (self,))


def sign_checkpoint(checkpoint: Checkpoint, signers: Iterable[Signer]) -> bytes:
    """The note with one signature of each, in that order."""
    text = checkpoint.text()
    return text + b"\n" + b"".join(signer.line(text) for signer in signers)


def add_lines(note: bytes, lines: Iterable[bytes]) -> bytes:
    """The note with these signature lines below those that it has; one that it has already is not doubled."""
    fresh = [line for line in dict.fromkeys(lines) if b"\n" + line not in note]
    return note + b"".join(fresh)


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
        if dash != "\u2014" or NAME.fullmatch(name) is None:
            raise NoteError("a signature line is not of the form `\u2014 name base64`")
        raw = strict_b64(encoded, "a signature")
        if len(raw) < 5:
            raise NoteError("a signature is too short")
        signatures.append((name, raw))
    return text.encode(), signatures


def parse_checkpoint(text: bytes) -> Checkpoint:
    """Read a note's text, which is valid UTF-8; of who signed it nothing is said. Raises NoteError."""
    lines = text.decode().split("\n")[:-1]
    if len(lines) != 3 or not lines[0]:
        raise NoteError("the checkpoint is not of three lines: origin, size, root")
    origin, size, root_text = lines
    if _SIZE.fullmatch(size) is None:
        raise NoteError(f"the checkpoint's size {size[:32]!r} is not a decimal number")
    root = strict_b64(root_text, "the checkpoint's root")
    if len(root) != 32:
        raise NoteError("the checkpoint's root is not of 32 bytes")
    return Checkpoint(origin, int(size), root)


def unverified(note: bytes) -> Checkpoint:
    """What a signed note says, whoever signed it. Raises NoteError."""
    return parse_checkpoint(_split(note)[0])


def open_note(note: bytes, keys: Iterable[VerifierKey]) -> bytes:
    """The text of a signed note. Raises NoteError.

    Signatures of keys that are not in `keys` are ignored; one of a key that is must verify, and there must be one.
    """
    text, signatures = _split(note)
    _signed_by(text, signatures, keys)
    return text


def _signed_by(text: bytes, signatures: Iterable[tuple[str, bytes]], keys: Iterable[VerifierKey]) -> None:
    known = by_hint(keys)
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


def open_checkpoint(note: bytes, keys: Iterable[VerifierKey]) -> Checkpoint:
    """Verify and read a checkpoint, as `open_note` does. Raises NoteError.

    A key's name is its ledger's origin: what another ledger's key signed is nobody's word. Whether it is of the ledger
    at hand (origin, root) is the caller's to check.
    """
    text, signatures = _split(note)
    return _signed_head(text, signatures, keys)


def _signed_head(text: bytes, signatures: Sequence[tuple[str, bytes]], keys: Iterable[VerifierKey]) -> Checkpoint:
    known = tuple(keys)
    _signed_by(text, signatures, known)
    head = parse_checkpoint(text)
    own = [key for key in known if key.name == head.origin]
    if len(own) < len(known):
        try:
            _signed_by(text, signatures, own)
        except NoteError:
            raise NoteError(f"it is of {head.origin[:64]}, and no key of that name is known that signed it") from None
    return head


@dataclass(frozen=True, slots=True)
class Cosignature:
    """That a witness saw a checkpoint as the newest of its log: `time_s` seconds after 1970, by the witness's clock."""

    key: CosignKey
    time_s: int


@dataclass(frozen=True, slots=True)
class Witnessed:
    """A checkpoint that the ledger signed, and who cosigned it: at most one of each key, in the note's order."""

    checkpoint: Checkpoint
    cosignatures: tuple[Cosignature, ...]


def open_witnessed(
    note: bytes, log_keys: Iterable[VerifierKey], witness_keys: Iterable[CosignKey], require: int = 0
) -> Witnessed:
    """Verify and read a checkpoint, as `open_checkpoint` does, with its cosignatures. Raises NoteError.

    A known witness's cosignature must verify; of unknown ones nothing is said. At least `require` different public keys
    must have cosigned: one key under two names is one witness, since what is signed has no name in it.
    """
    text, signatures = _split(note)
    head = _signed_head(text, signatures, log_keys)
    known = by_hint(witness_keys)
    found: dict[CosignKey, Cosignature] = {}
    for name, raw in signatures:
        key = known.get((name, raw[:4]))
        if key is None:
            continue
        time_s = key.time_of(raw[4:], text)
        if time_s is None:
            raise NoteError(f"the cosignature of {name} does not verify")
        if key not in found or found[key].time_s < time_s:
            found[key] = Cosignature(key, time_s)
    witnesses = len({key.public for key in found})
    if witnesses < require:
        raise NoteError(f"{witnesses} known witnesses cosigned it, {require} are required")
    return Witnessed(head, tuple(found.values()))
