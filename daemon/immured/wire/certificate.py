"""Certificates: what a key passes on to another key, signed offline. docs/protocol.md has them in prose.

An envelope of the type CERTIFICATE, under the one signature of its issuer. Whether a chain of them holds is
`identity.certificates`; here is what one says, and how it stands in a file:

    -----BEGIN IMMURED CERTIFICATE-----
    base64 of the envelope
    -----END IMMURED CERTIFICATE-----

A file holds a whole chain, the keyring key's own first.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from immured.errors import ConfigurationError, Refused
from immured.wire.envelope import Envelope, decode_envelope, seal
from immured.wire.keys import PublicKey, Signer
from immured.wire.strict import Fields, kind_of, shown, take
from immured.wire.strict_msgpack import pack, unpack

__all__ = [
    "CERTIFICATE",
    "MAX_CHAIN",
    "MAX_DEPTH",
    "MAX_LIFE_MS",
    "Certificate",
    "chain_from_pem",
    "chain_to_pem",
    "issue",
    "parse_certificate",
]

CERTIFICATE: Final = "application/vnd.immured.certificate.v1+msgpack"

MAX_LIFE_MS: Final = 30 * 86_400_000
MAX_DEPTH: Final = 3
"""Links that may follow one."""
MAX_CHAIN: Final = MAX_DEPTH + 1
MAX_PERMISSIONS: Final = 256
MAX_NAMES: Final = 64
"""Tenants, projects, classes, labels, audiences, each."""
MAX_COMMANDS: Final = 1_000_000
NONCE_BYTES: Final = 16

_CODE: Final = "bad_certificate"
_FIELDS: Final = (
    *("v", "public", "name", "nonce", "nbf", "exp", "permissions", "depth"),
    *("tenants", "projects", "classes", "labels", "commands", "sub", "aud"),
)
_MAX_TIME: Final = 2**53 - 1
_MAX_TEXT: Final = 256
_MAX_SUB: Final = 128
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}", re.ASCII)
_PERMISSION: Final = re.compile(r"[a-z][a-z0-9._-]{0,63}", re.ASCII)
_WORD: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_LABEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What `public` may do in its issuer's stead. Empty sets and maps narrow nothing, but for `permissions`, of which
    there is at least one. Times are milliseconds since the epoch, UTC: nbf <= now < exp.

    `commands`: how many it may give, None: as many as it likes. `depth`: how many links may follow. `sub`: on whose
    behalf all its commands are. `aud`: daemons' key ids and audience names; empty: wherever the issuer is known.
    """

    public: PublicKey
    name: str
    nbf: int
    exp: int
    permissions: frozenset[str]
    nonce: bytes
    tenants: frozenset[str] = frozenset()
    projects: frozenset[str] = frozenset()
    classes: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)
    commands: int | None = None
    depth: int = 0
    sub: str | None = None
    aud: frozenset[str] = frozenset()

    def to_payload(self) -> bytes:
        """The payload bytes: the same for the same certificate."""
        fields: dict[str, object] = {
            "v": 1,
            "public": self.public.raw,
            "name": self.name,
            "nonce": self.nonce,
            "nbf": self.nbf,
            "exp": self.exp,
            "permissions": sorted(self.permissions),
            "depth": self.depth,
        }
        for name in ("tenants", "projects", "classes", "aud"):
            if values := getattr(self, name):
                fields[name] = sorted(values)
        if self.labels:
            fields["labels"] = dict(sorted(self.labels.items()))
        if self.commands is not None:
            fields["commands"] = self.commands
        if self.sub is not None:
            fields["sub"] = self.sub
        return pack(fields)

    def to_map(self) -> dict[str, object]:
        """For people and JSON."""
        shown_: dict[str, object] = {
            "key": self.public.id,
            "public": self.public.raw.hex(),
            "name": self.name,
            "nbf": self.nbf,
            "exp": self.exp,
            "permissions": sorted(self.permissions),
            "depth": self.depth,
        }
        for name in ("tenants", "projects", "classes", "aud"):
            if values := getattr(self, name):
                shown_[name] = sorted(values)
        more = {"labels": dict(self.labels), "commands": self.commands, "sub": self.sub}
        return shown_ | {name: value for name, value in more.items() if value}


def parse_certificate(payload: bytes) -> Certificate:
    """A verified payload, strictly. Raises Refused `bad_msgpack`, `unknown_field`, `bad_certificate`."""
    fields = take(unpack(payload, max_depth=2, max_items=2048), "the certificate", _FIELDS, code=_CODE)
    if fields.required("v", int) != 1:
        raise fields.wrong("v", "is not 1")
    nbf, exp = _time(fields, "nbf"), _time(fields, "exp")
    if not 0 < exp - nbf <= MAX_LIFE_MS:
        raise fields.wrong("exp", f"is {exp - nbf} ms after nbf; it may be 1 to {MAX_LIFE_MS} (30 days)")
    nonce = fields.sized("nonce", bytes, NONCE_BYTES, NONCE_BYTES)
    if nonce is None:
        raise fields.wrong("nonce", "is missing")
    depth = fields.integer("depth", 0, MAX_DEPTH)
    if depth is None:
        raise fields.wrong("depth", f"is missing; it may be 0 to {MAX_DEPTH}")
    permissions = _names(fields, "permissions", _PERMISSION, MAX_PERMISSIONS)
    if not permissions:
        raise fields.wrong("permissions", "is missing", "name the commands that the key may give, exactly")
    return Certificate(
        public=_public(fields),
        name=_matching(fields, "name", fields.required("name", str), _NAME),
        nbf=nbf,
        exp=exp,
        permissions=permissions,
        nonce=nonce,
        tenants=_names(fields, "tenants", _WORD),
        projects=_names(fields, "projects", _WORD),
        classes=_names(fields, "classes", _WORD),
        labels=_labels(fields),
        commands=fields.integer("commands", 1, MAX_COMMANDS),
        depth=depth,
        sub=_text(fields, "sub"),
        aud=_texts(fields, "aud"),
    )


def issue(
    issuer: Signer,
    public: PublicKey,
    name: str,
    *,
    now_ms: int,
    life_ms: int,
    permissions: Collection[str],
    tenants: Collection[str] = (),
    projects: Collection[str] = (),
    classes: Collection[str] = (),
    labels: Mapping[str, str] | None = None,
    commands: int | None = None,
    depth: int = 0,
    sub: str | None = None,
    aud: Collection[str] = (),
) -> bytes:
    """A certificate for `public`, signed: a frame's body. It gives nothing that the issuer may not do itself.

    Raises Refused `bad_certificate` for what no daemon would take.
    """
    made = Certificate(
        public, name, now_ms, now_ms + life_ms, frozenset(permissions), os.urandom(NONCE_BYTES),
        frozenset(tenants), frozenset(projects), frozenset(classes), dict(labels or {}),
        commands, depth, sub, frozenset(aud),
    )  # fmt: skip
    payload = made.to_payload()
    parse_certificate(payload)
    return seal(CERTIFICATE, payload, [issuer])


# -- as a file

_BEGIN: Final = b"-----BEGIN IMMURED CERTIFICATE-----"
_END: Final = b"-----END IMMURED CERTIFICATE-----"
_LINE: Final = 64


def chain_to_pem(chain: Sequence[bytes]) -> bytes:
    """Frames' bodies as text, in their order."""
    return b"".join(_armoured(body) for body in chain)


def chain_from_pem(pem: bytes) -> list[tuple[bytes, Envelope]]:
    """The frames' bodies of a chain's file, and their envelopes; nothing is verified.

    Raises ConfigurationError `bad_certificate`.
    """
    found: list[tuple[bytes, Envelope]] = []
    rest = pem
    while _BEGIN in rest:
        text, closed, rest = rest.partition(_BEGIN)[2].partition(_END)
        if not closed:
            raise _unreadable("its last certificate does not end")
        try:
            body = base64.b64decode(b"".join(text.split()), validate=True)
            envelope = decode_envelope(body)
        except (binascii.Error, Refused) as error:
            raise _unreadable(str(error)) from None
        if envelope.type != CERTIFICATE:
            raise _unreadable(f"it holds {shown(envelope.type)}")
        found.append((body, envelope))
    if not 0 < len(found) <= MAX_CHAIN:
        raise _unreadable(f"it holds {len(found)} certificates; a chain has 1 to {MAX_CHAIN}")
    return found


def _armoured(body: bytes) -> bytes:
    text = base64.b64encode(body)
    lines = [text[at : at + _LINE] for at in range(0, len(text), _LINE)]
    return b"\n".join([_BEGIN, *lines, _END, b""])


def _unreadable(what: str) -> ConfigurationError:
    return ConfigurationError(_CODE, f"the certificates cannot be read: {what}", "make them with: immure key certify")


# -- fields


def _public(fields: Fields) -> PublicKey:
    try:
        return PublicKey(fields.required("public", bytes))
    except ConfigurationError as error:
        raise fields.wrong("public", f"is no key: {error.message}", error.remedy) from None


def _time(fields: Fields, name: str) -> int:
    value = fields.integer(name, 0, _MAX_TIME)
    if value is None:
        raise fields.wrong(name, "is missing")
    return value


def _matching(fields: Fields, where: str, value: object, pattern: re.Pattern[str]) -> str:
    if not isinstance(value, str):
        raise fields.wrong(where, f"holds {kind_of(value)}")
    if not pattern.fullmatch(value):
        raise fields.wrong(where, f"holds {shown(value)}, which is no such name", f"it matches {pattern.pattern}")
    return value


def _names(fields: Fields, name: str, pattern: re.Pattern[str], most: int = MAX_NAMES) -> frozenset[str]:
    """Absent: the empty set. An empty list would allow nothing, or everything: it is refused."""
    values = fields.sized(name, list, 1, most)
    if values is None:
        return frozenset()
    found = frozenset(_matching(fields, name, value, pattern) for value in values)
    if len(found) != len(values):
        raise fields.wrong(name, "holds a name twice")
    return found


def _text(fields: Fields, name: str) -> str | None:
    value = fields.sized(name, str, 1, _MAX_SUB)
    if value is not None and not value.isprintable():
        raise fields.wrong(name, "is not printable")
    return value


def _texts(fields: Fields, name: str) -> frozenset[str]:
    values = fields.sized(name, list, 1, MAX_NAMES)
    if values is None:
        return frozenset()
    for value in values:
        if not isinstance(value, str) or not 0 < len(value) <= _MAX_TEXT:
            raise fields.wrong(name, "holds what is no name")
    return frozenset(values)


def _labels(fields: Fields) -> dict[str, str]:
    given = fields.sized("labels", dict, 1, MAX_NAMES) or {}
    for label, value in given.items():
        _matching(fields, "labels", label, _LABEL)
        if not isinstance(value, str) or len(value) > _MAX_TEXT:
            raise fields.wrong("labels", "holds what is no text")
    return dict(given)
