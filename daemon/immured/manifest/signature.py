"""Detached signatures of a manifest file: who vouches for these very bytes, since when and until when. Pure.

Beside `build.toml` stands `build.toml.sig`:

    immured-signature v1
    ed25519:<32 hex> <signed, ms> <expires, ms> <base64 of 64 bytes>

one line a signature, each ended by one LF. What is signed is DSSE's encoding of the file's bytes under a type that
holds both times, so that neither can be changed and nothing of the file is parsed before it is verified. Whose key may
sign what is not said here.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.wire.envelope import pae
from immured.wire.strict import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from immured.wire.keys import PublicKey, Signer

__all__ = [
    "DEFAULT_LIFE_MS",
    "HEAD",
    "MAX_LIFE_MS",
    "MAX_SIGNATURES",
    "MAX_TEXT",
    "SKEW_MS",
    "Signature",
    "parse_signatures",
    "show_signatures",
    "sign",
    "signed_type",
    "verify",
]

HEAD: Final = "immured-signature v1"
MAX_SIGNATURES: Final = 8
MAX_LIFE_MS: Final = 366 * 86_400_000
DEFAULT_LIFE_MS: Final = 90 * 86_400_000
SKEW_MS: Final = 60_000
"""How far ahead of ours the clock of who signs may be: as for commands."""
MAX_TEXT: Final = 2048
"""Bytes of a signature file: eight lines of the longest kind have less."""

_CODE: Final = "signature_invalid"
_MAX_TIME: Final = 2**53 - 1
_KEY: Final = re.compile(r"ed25519:[0-9a-f]{32}", re.ASCII)
_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)
_SIGNATURE_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Signature:
    """One line. Times are milliseconds since the epoch, UTC. `raw`: 64 bytes; nothing is verified yet."""

    key_id: str
    signed_ms: int
    expires_ms: int
    raw: bytes

    def early(self, now_ms: int) -> bool:
        """Whether it says to have been made in the future, by more than clocks differ."""
        return now_ms < self.signed_ms - SKEW_MS

    def expired(self, now_ms: int) -> bool:
        """Whether its time is over: it holds until just before `expires_ms`."""
        return now_ms >= self.expires_ms


def parse_signatures(text: str | bytes) -> tuple[Signature, ...]:
    """The signatures of a file, in its order: 1 to 8, no key twice. One text stands for them: what differs from
    `show_signatures` by a byte is refused.

    Raises Refused `signature_invalid`, naming the line (`details.line`, from 1).
    """
    try:
        whole = text if isinstance(text, str) else text.decode("ascii")
    except UnicodeDecodeError:
        raise _bad(1, "the signature file is not ASCII") from None
    if len(whole) > MAX_TEXT:
        raise _bad(1, f"the signature file has {len(whole)} bytes; at most {MAX_TEXT}")
    head, *lines = whole.split("\n")
    if head != HEAD:
        raise _bad(1, f"the first line is {shown(head)}, not '{HEAD}'")
    if not lines or lines[-1]:
        raise _bad(1 + len(lines), "the last line is not ended by a line feed")
    lines.pop()
    if not lines:
        raise _bad(1, "no signature follows the first line")
    if len(lines) > MAX_SIGNATURES:
        raise _bad(2 + MAX_SIGNATURES, f"{len(lines)} signatures; at most {MAX_SIGNATURES}")
    found: dict[str, Signature] = {}
    for number, line in enumerate(lines, 2):
        one = _line(number, line)
        if one.key_id in found:
            raise _bad(number, f"the key {one.key_id} signs twice")
        found[one.key_id] = one
    return tuple(found.values())


def show_signatures(signatures: Sequence[Signature]) -> str:
    """The text of a signature file."""
    return f"{HEAD}\n" + "".join(
        f"{one.key_id} {one.signed_ms} {one.expires_ms} {base64.b64encode(one.raw).decode()}\n" for one in signatures
    )


def signed_type(signed_ms: int, expires_ms: int) -> str:
    """The type under which the bytes are signed, with both times in it."""
    return f"application/vnd.immured.manifest.v1+toml;signed={signed_ms};expires={expires_ms}"


def sign(signer: Signer, raw: bytes, signed_ms: int, expires_ms: int) -> Signature:
    """A signature over a manifest file's bytes.

    Raises Refused `signature_invalid` for times that no reader takes, and as the signer does.
    """
    if problem := _times_problem(signed_ms, expires_ms):
        raise Refused(_CODE, problem, "let it end later than it begins, and within 366 days")
    return Signature(signer.id, signed_ms, expires_ms, signer.sign(pae(signed_type(signed_ms, expires_ms), raw)))


def verify(signature: Signature, public: PublicKey, raw: bytes) -> bool:
    """Whether it is this key's, over these very bytes and its own times. Whether it is in time is not asked."""
    if signature.key_id != public.id:
        return False
    return public.verify(signature.raw, pae(signed_type(signature.signed_ms, signature.expires_ms), raw))


def _line(number: int, line: str) -> Signature:
    words = line.split(" ")
    if len(words) != 4:
        raise _bad(number, f"{shown(line)} is not a key, two times and a signature, one space between them")
    key, signed, expires, encoded = words
    if not _KEY.fullmatch(key):
        raise _bad(number, f"{shown(key)} is no key id: `ed25519:` and 32 hex digits")
    times = _time(number, "signed", signed), _time(number, "expires", expires)
    if problem := _times_problem(*times):
        raise _bad(number, problem)
    return Signature(key, *times, _decoded(number, encoded))


def _time(number: int, name: str, text: str) -> int:
    if not _DECIMAL.fullmatch(text) or int(text) > _MAX_TIME:
        raise _bad(number, f"{name} is {shown(text)}, not milliseconds since the epoch in decimal")
    return int(text)


def _times_problem(signed_ms: int, expires_ms: int) -> str:
    """What is wrong with the two times, in words; empty where nothing is."""
    if not 0 <= signed_ms <= _MAX_TIME or expires_ms > _MAX_TIME:
        return f"a time lies outside of 0 to {_MAX_TIME}"
    if expires_ms <= signed_ms:
        return f"it expires at {expires_ms}, not after it was signed, at {signed_ms}"
    if expires_ms - signed_ms > MAX_LIFE_MS:
        return f"it holds for {expires_ms - signed_ms} ms; at most {MAX_LIFE_MS}, which is 366 days"
    return ""


def _decoded(number: int, encoded: str) -> bytes:
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise _bad(number, "the signature is not base64") from None
    if base64.b64encode(raw).decode() != encoded:
        raise _bad(number, "the signature's base64 is not the one form that its bytes have")
    if len(raw) != _SIGNATURE_BYTES:
        raise _bad(number, f"the signature has {len(raw)} bytes, not {_SIGNATURE_BYTES}")
    return raw


def _bad(number: int, message: str) -> Refused:
    return Refused(
        _CODE,
        f"line {number} of the signatures: {message}",
        "sign it again: immure manifest sign F --key KEY",
        details={"line": number},
    )
