"""Envelopes: `[1, type, payload, [[keyid, signature], ...]]`, signed over DSSE's encoding of the exact payload bytes.

The order is the safety: decode the shell, verify, and only then parse the payload, once, from the bytes verified.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from immured.errors import Refused
from immured.wire.keys import PublicKey, Signer
from immured.wire.strict import kind_of, shown
from immured.wire.strict_msgpack import pack, unpack

__all__ = [
    "MAX_KEY_ID",
    "MAX_SIGNATURES",
    "VERSION",
    "Envelope",
    "decode_envelope",
    "encode_envelope",
    "pae",
    "seal",
    "verify",
]

VERSION: Final = 1
MAX_SIGNATURES: Final = 8
MAX_TYPE: Final = 128
MAX_KEY_ID: Final = 128

# An envelope of eight signatures holds 29 values. What is far beyond that is refused by its first header, unread.
_MAX_ITEMS: Final = 128
_SHAPE: Final = "[1, type, payload, [[keyid, signature], ...]]"


@dataclass(frozen=True, slots=True)
class Envelope:
    """A decoded shell; nothing in it is trusted yet."""

    type: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]


def pae(type: str, payload: bytes) -> bytes:
    """DSSE v1 pre-authentication encoding: what is signed. Lengths count bytes, in ASCII decimal."""
    name = type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(payload), payload)


def decode_envelope(body: bytes) -> Envelope:
    """A frame's body as an envelope. Raises Refused `bad_msgpack` or `bad_envelope`."""
    value = unpack(body, max_depth=3, max_items=_MAX_ITEMS)
    if type(value) is not list or len(value) != 4:
        raise _bad(f"an envelope is {_SHAPE}, not {kind_of(value)}")
    version, kind, payload, signatures = value
    if type(version) is not int or version != VERSION:
        raise _bad("the envelope's version is not 1")
    if type(kind) is not str or not 0 < len(kind) <= MAX_TYPE:
        raise _bad(f"the envelope's type is not a str of 1 to {MAX_TYPE} characters")
    if type(payload) is not bytes:
        raise _bad(f"the envelope's payload is {kind_of(payload)}, not bin")
    if type(signatures) is not list:
        raise _bad(f"the envelope's signatures are {kind_of(signatures)}, not an array")
    if len(signatures) > MAX_SIGNATURES:
        raise _bad(f"{len(signatures)} signatures; at most {MAX_SIGNATURES} are read")
    seen: dict[str, bytes] = {}
    for entry in signatures:
        keyid, signature = _signature(entry)
        if keyid in seen:
            raise _bad(f"the key {shown(keyid)} signs twice")
        seen[keyid] = signature
    return Envelope(kind, payload, tuple(seen.items()))


def encode_envelope(type: str, payload: bytes, signatures: Sequence[tuple[str, bytes]] = ()) -> bytes:
    """A frame's body."""
    return pack([VERSION, type, payload, [list(entry) for entry in signatures]])


def seal(type: str, payload: bytes, keys: Sequence[Signer]) -> bytes:
    """A frame's body, signed by each of `keys`; the first is the actor."""
    message = pae(type, payload)
    return encode_envelope(type, payload, [(key.id, key.sign(message)) for key in keys])


def verify(envelope: Envelope, lookup: Callable[[str], PublicKey | None]) -> str:
    """The actor: the id of the first key that verified. `lookup` answers None for a key that is not known.

    Unknown keys are passed over; a known key's bad signature refuses the whole, wherever it stands.
    Raises Refused `unsigned`, `unknown_key` or `bad_signature`.
    """
    if not envelope.signatures:
        raise Refused("unsigned", "the envelope carries no signature", "sign it with a key that the daemon knows")
    message = pae(envelope.type, envelope.payload)
    actor: str | None = None
    for keyid, signature in envelope.signatures:
        key = lookup(keyid)
        if key is None:
            continue
        if not key.verify(signature, message):
            raise Refused(
                "bad_signature",
                f"the signature of {key.id} does not verify over these bytes",
                "sign the DSSE encoding of the very type and payload that are sent",
                details={"key": key.id},
            )
        actor = actor or key.id
    if actor is None:
        first = envelope.signatures[0][0]
        raise Refused(
            "unknown_key",
            f"no key here is known to the daemon; the first is {shown(first)}",
            "have an admin add it: immure key add",
            details={"key": first},
        )
    return actor


def _signature(entry: object) -> tuple[str, bytes]:
    if type(entry) is not list or len(entry) != 2:
        raise _bad("a signature is not [keyid, signature]")
    keyid, signature = entry
    if type(keyid) is not str or not 0 < len(keyid) <= MAX_KEY_ID:
        raise _bad(f"a key id is not a str of 1 to {MAX_KEY_ID} characters")
    if type(signature) is not bytes:
        raise _bad(f"a signature is {kind_of(signature)}, not bin")
    return keyid, signature


def _bad(message: str) -> Refused:
    return Refused("bad_envelope", message, f"send {_SHAPE}; see docs/protocol.md, Envelope")
