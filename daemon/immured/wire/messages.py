"""The four messages that envelopes carry: hello, command, reply, data. docs/protocol.md has them in prose.

What a client sends is read strictly (`parse_command`, `parse_data(strict=True)`); what the daemon sends is read with an
eye shut to fields that a later version may add (`parse_hello`, `parse_reply`, `parse_data`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from immured.errors import ImmuredError, Refused
from immured.wire.envelope import encode_envelope
from immured.wire.strict import Fields, kind_of, shown, take
from immured.wire.strict_msgpack import pack, unpack

__all__ = [
    "COMMAND",
    "DATA",
    "HELLO",
    "MAX_CAPTURE",
    "MAX_DATA",
    "MAX_LIFETIME_MS",
    "NONCE_BYTES",
    "REPLY",
    "SKEW_MS",
    "Command",
    "Data",
    "Hello",
    "Receipt",
    "Reply",
    "StreamRecord",
    "check_window",
    "data_body",
    "new_nonce",
    "nonce_in",
    "parse_command",
    "parse_data",
    "parse_hello",
    "parse_reply",
]

HELLO: Final = "application/vnd.immured.hello.v1+msgpack"
COMMAND: Final = "application/vnd.immured.command.v1+msgpack"
REPLY: Final = "application/vnd.immured.reply.v1+msgpack"
DATA: Final = "application/vnd.immured.data.v1+msgpack"

NONCE_BYTES: Final = 16
MAX_LIFETIME_MS: Final = 300_000
SKEW_MS: Final = 60_000
MAX_DATA: Final = 65_536
"""Bytes of data in one data frame."""
MAX_CAPTURE: Final = 262_144
"""Bytes of stdout, and of stderr, that a reply itself carries."""

_MAX_TIME: Final = 2**53 - 1
_MAX_NAME: Final = 128
_CARRIED: Final = ("persona", "tenant", "sub", "project", "session")
"""The names under which a command may be given."""


@dataclass(frozen=True, slots=True)
class Command:
    """What a signed payload orders. Times are milliseconds since the epoch, UTC."""

    aud: str
    cmd: str
    args: Mapping[str, object]
    nonce: bytes
    iat: int
    exp: int
    persona: str | None = None
    tenant: str | None = None
    sub: str | None = None
    project: str | None = None
    session: str | None = None

    def to_payload(self) -> bytes:
        """The payload bytes. Raises Refused `bad_msgpack` for arguments that msgpack here does not carry."""
        fields: dict[str, object] = {
            "aud": self.aud,
            "cmd": self.cmd,
            "args": self.args,
            "nonce": self.nonce,
            "iat": self.iat,
            "exp": self.exp,
        }
        for name in _CARRIED:
            value = getattr(self, name)
            if value is not None:
                fields[name] = value
        return pack(fields)


_COMMAND_FIELDS: Final = ("aud", "cmd", "args", "nonce", "iat", "exp", *_CARRIED)


def new_nonce() -> bytes:
    """16 bytes from the system's randomness."""
    return os.urandom(NONCE_BYTES)


def parse_command(payload: bytes) -> Command:
    """A verified payload as a command; `args` is still untyped. Raises Refused `bad_msgpack`, `bad_command` or
    `unknown_field`."""
    fields = take(unpack(payload), "the command", _COMMAND_FIELDS, code="bad_command")
    cmd = _name(fields, "cmd")
    nonce = fields.sized("nonce", bytes, NONCE_BYTES, NONCE_BYTES)
    if nonce is None:
        raise fields.wrong("nonce", "is missing")
    return Command(
        aud=_name(fields, "aud"),
        cmd=cmd,
        args=fields.required("args", dict),
        nonce=nonce,
        iat=_time(fields, "iat"),
        exp=_time(fields, "exp"),
        persona=fields.sized("persona", str, 1, _MAX_NAME),
        tenant=fields.sized("tenant", str, 1, _MAX_NAME),
        sub=fields.sized("sub", str, 1, _MAX_NAME),
        project=fields.sized("project", str, 1, _MAX_NAME),
        session=fields.sized("session", str, 1, _MAX_NAME),
    )


def nonce_in(payload: bytes) -> bytes | None:
    """The nonce of a verified payload that is no command otherwise; None where there is none to be read."""
    with contextlib.suppress(Refused):
        value = unpack(payload)
        nonce = value.get("nonce") if isinstance(value, dict) else None
        if isinstance(nonce, bytes) and len(nonce) == NONCE_BYTES:
            return nonce
    return None


def check_window(command: Command, now_ms: int, audiences: Collection[str]) -> None:
    """Whether the command is for one of us, and for now: iat - 60 s <= now < exp + 60 s.

    Raises Refused `wrong_audience`, `bad_command` (the window itself is wrong), `not_yet_valid` or `expired`.
    """
    if command.aud not in audiences:
        raise Refused(
            "wrong_audience",
            f"the command is for {shown(command.aud)}, not for this daemon",
            "set aud to the daemon's key id (its hello, daemon.pub) or to an audience that its operator configured",
        )
    if not 0 <= command.exp - command.iat <= MAX_LIFETIME_MS:
        raise Refused(
            "bad_command",
            f"exp is {command.exp - command.iat} ms after iat; it may be 0 to {MAX_LIFETIME_MS}",
            "sign the command shortly before it is sent",
        )
    details: dict[str, object] = {"now_ms": now_ms, "iat": command.iat, "exp": command.exp}
    if now_ms < command.iat - SKEW_MS:
        late = command.iat - now_ms
        raise Refused("not_yet_valid", f"the command is dated {late} ms ahead", _CLOCKS, details=details)
    if now_ms >= command.exp + SKEW_MS:
        late = now_ms - command.exp
        raise Refused("expired", f"the command expired {late} ms ago", _CLOCKS, details=details)


_CLOCKS: Final = "compare the clocks of both sides, and sign anew"


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where the ledger holds a decision: the entry's index and its leaf hash (32 bytes)."""

    seq: int
    leaf: bytes

    def to_map(self) -> dict[str, object]:
        return {"seq": self.seq, "leaf": self.leaf}


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """What the signed reply says of one stream: the values of `result.streams`.

    `length` and `sha256` (32 bytes) are of the whole stream, also where the reply or the limits kept less of it.
    """

    length: int = 0
    sha256: bytes = b""
    truncated: bool = False
    """Captured, and longer than what the reply carries."""
    passed: bool = False
    """The caller's own descriptor: neither captured nor digested; length and sha256 are absent."""

    def to_map(self) -> dict[str, object]:
        if self.passed:
            return {"passed": True}
        value: dict[str, object] = {"length": self.length, "sha256": self.sha256}
        if self.truncated:
            value["truncated"] = True
        return value


@dataclass(frozen=True, slots=True)
class Reply:
    """The daemon's signed answer. `error` holds code, message, remedy, details; exactly one of `result` and `error`
    is set. `re` is the command's nonce, `req` SHA-256 of its payload bytes: absent where they could not be read."""

    ok: bool
    result: Mapping[str, object] | None = None
    error: Mapping[str, object] | None = None
    re: bytes | None = None
    req: bytes | None = None
    receipt: Receipt | None = None
    intent: Receipt | None = None

    @classmethod
    def refusal(
        cls,
        error: ImmuredError,
        *,
        re: bytes | None = None,
        req: bytes | None = None,
        receipt: Receipt | None = None,
        intent: Receipt | None = None,
    ) -> Reply:
        """The reply that says `error`."""
        said: dict[str, object] = {
            "code": error.code,
            "message": error.message,
            "remedy": error.remedy,
            "details": error.details,
        }
        return cls(ok=False, error=said, re=re, req=req, receipt=receipt, intent=intent)

    def to_payload(self) -> bytes:
        """The payload bytes to be sealed as REPLY."""
        fields: dict[str, object] = {"ok": self.ok}
        if self.re is not None:
            fields["re"] = self.re
        if self.req is not None:
            fields["req"] = self.req
        if self.ok:
            fields["result"] = self.result or {}
        else:
            fields["error"] = self.error or {}
        if self.receipt is not None:
            fields["receipt"] = self.receipt.to_map()
        if self.intent is not None:
            fields["intent"] = self.intent.to_map()
        return pack(fields)


def parse_reply(payload: bytes) -> Reply:
    """A verified payload as a reply. Raises Refused `bad_reply`."""
    fields = _lenient(payload, "the reply", "bad_reply")
    ok = fields.required("ok", bool)
    return Reply(
        ok=ok,
        result=fields.required("result", dict) if ok else None,
        error=None if ok else fields.required("error", dict),
        re=fields.sized("re", bytes, NONCE_BYTES, NONCE_BYTES),
        req=fields.sized("req", bytes, 32, 32),
        receipt=_receipt(fields, "receipt"),
        intent=_receipt(fields, "intent"),
    )


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of a stream of the request whose nonce is `re`; empty `data` ends the stream. Not signed: the reply's
    digests are."""

    re: bytes
    stream: str
    data: bytes


def data_body(re: bytes, stream: str, data: bytes) -> bytes:
    """A frame's body for at most MAX_DATA bytes of a stream."""
    if len(data) > MAX_DATA:
        raise ValueError(f"{len(data)} bytes of data in one frame; the limit is {MAX_DATA}")
    return encode_envelope(DATA, pack({"re": re, "stream": stream, "data": data}))


def parse_data(payload: bytes, *, strict: bool = False) -> Data:
    """The payload of a data envelope. Raises Refused `bad_command`, `unknown_field` (when strict) or `bad_msgpack`."""
    if strict:
        # Nobody signed it: what is far from its seven values is refused unread.
        fields = take(unpack(payload, max_depth=2, max_items=64), "data", ("re", "stream", "data"), code="bad_command")
    else:
        fields = _lenient(payload, "data", "bad_reply")
    re = fields.sized("re", bytes, NONCE_BYTES, NONCE_BYTES)
    data = fields.sized("data", bytes, 0, MAX_DATA)
    if re is None or data is None:
        raise fields.wrong("re" if re is None else "data", "is missing")
    return Data(re, fields.required("stream", str), data)


@dataclass(frozen=True, slots=True)
class Hello:
    """What the daemon says first. A replayed one verifies too: nothing in it is trusted until a reply verifies."""

    daemon: str
    boot: bytes
    time_ms: int
    version: str
    limits: Mapping[str, object] = field(default_factory=dict)

    def to_payload(self) -> bytes:
        """The payload bytes to be sealed as HELLO."""
        return pack(
            {
                "daemon": self.daemon,
                "boot": self.boot,
                "time_ms": self.time_ms,
                "version": self.version,
                "limits": self.limits,
            }
        )


def parse_hello(payload: bytes) -> Hello:
    """A hello's payload. Raises Refused `bad_reply`."""
    fields = _lenient(payload, "the hello", "bad_reply")
    return Hello(
        daemon=_name(fields, "daemon"),
        boot=fields.required("boot", bytes),
        time_ms=_time(fields, "time_ms"),
        version=_name(fields, "version"),
        limits=fields.required("limits", dict),
    )


def _lenient(payload: bytes, where: str, code: str) -> Fields:
    value = unpack(payload)
    if type(value) is not dict:
        raise Refused(code, f"{where} is {kind_of(value)}, not a map")
    return Fields(value, where, code)


def _name(fields: Fields, name: str) -> str:
    value = fields.sized(name, str, 1, _MAX_NAME)
    if value is None:
        raise fields.wrong(name, "is missing")
    return value


def _time(fields: Fields, name: str) -> int:
    value = fields.integer(name, 0, _MAX_TIME)
    if value is None:
        raise fields.wrong(name, "is missing")
    return value


def _receipt(fields: Fields, name: str) -> Receipt | None:
    value = fields.optional(name, dict)
    if value is None:
        return None
    inner = Fields(value, f"{fields.where}.{name}", fields.code)
    seq, leaf = inner.integer("seq", 0, _MAX_TIME), inner.sized("leaf", bytes, 32, 32)
    if seq is None or leaf is None:
        raise fields.wrong(name, "lacks its seq or leaf")
    return Receipt(seq, leaf)
