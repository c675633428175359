"""One entry of the ledger: how its line is built, and how a line is read back. No I/O, no clock, no state.

docs/ledger.md is the specification. What is hashed is the line's bytes as they stand, so nothing here needs a canonical
form; the writer keeps one field order only because people read it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from immured.ledger.timestamps import is_timestamp

__all__ = [
    "HEAD",
    "MAX_DEPTH",
    "MAX_FRAME",
    "MAX_INTEGER",
    "MAX_LINE",
    "MAX_TEXT",
    "NO_LEAF",
    "Body",
    "Entry",
    "Json",
    "LineError",
    "build_line",
    "check_type",
    "encode_body",
    "encode_value",
    "leaf_hash",
    "parse_line",
]

Json: TypeAlias = "str | int | bool | list[Json] | dict[str, Json]"

MAX_LINE: Final = 65_535
"""Bytes of a line without its newline."""
MAX_TEXT: Final = 1_024
"""Bytes of a text (UTF-8) or a byte string; a longer one enters as its digest."""
HEAD: Final = 256
"""Bytes of a longer one that stay readable beside the digest."""
MAX_INTEGER: Final = 2**53 - 1
MAX_DEPTH: Final = 16
"""Nesting of maps and lists; the line itself is level one."""
NO_LEAF: Final = "0" * 64
"""`prev` of line 0."""

_FIELDS: Final = ("v", "seq", "ts", "type", "actor", "data", "prev")
_FIELD_SET: Final = frozenset(_FIELDS)
_TYPE: Final = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)+")
_HEX64: Final = re.compile(r"[0-9a-f]{64}")
_MAX_TYPE: Final = 64
_MAX_ACTOR: Final = 8_192
MAX_FRAME: Final = 256
"""Field names, digits, the time stamp and `prev`, with room to spare; the rest of a line is type, actor and data."""

# Characters that change what a terminal or an editor shows, without being seen: controls, line and paragraph
# separators, direction marks, joiners, tags. A caller chooses argv; whoever reads the file must see what is there.
_INVISIBLE: Final = re.compile(
    "[\x7f-\x9f\xad\u061c\u070f\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\uffff\U000e0000-\U000e0fff]"
)


def leaf_hash(line: bytes) -> bytes:
    """SHA-256(0x00 || line), 32 bytes: the RFC 6962 leaf of a line without its newline."""
    return hashlib.sha256(b"\x00" + line).digest()


class Entry(NamedTuple):
    """A line of the ledger, read. `actor` and `data` as JSON says them; `leaf` is the hash of the line's bytes."""

    seq: int
    ts: str
    type: str
    actor: Mapping[str, Json]
    data: Mapping[str, Json]
    prev: str
    leaf: bytes
    line: bytes
    """The exact bytes, without the newline."""


class LineError(ValueError):
    """A line that is no entry. `code` is stable; `expected` says what would have been right."""

    def __init__(self, code: str, message: str, expected: str) -> None:
        super().__init__(f"{message} (expected {expected})")
        self.code = code
        self.message = message
        self.expected = expected


# --- writing -----------------------------------------------------------------------------------------------------


def _digest(raw: bytes, head: Json) -> dict[str, Json]:
    return {"sha256": hashlib.sha256(raw).hexdigest(), "len": len(raw), "head": head}


def _text_head(raw: bytes) -> str:
    return raw[:HEAD].decode("utf-8", "ignore")


def _encode_octets(raw: bytes) -> Json:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        if len(raw) <= MAX_TEXT:
            return {"b64": base64.b64encode(raw).decode()}
        return _digest(raw, {"b64": base64.b64encode(raw[:HEAD]).decode()})
    return text if len(raw) <= MAX_TEXT else _digest(raw, _text_head(raw))


def _encode_text(text: str) -> Json:
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        # A path or argument that Python decoded with surrogateescape: its bytes are what the kernel saw.
        try:
            return _encode_octets(text.encode("utf-8", "surrogateescape"))
        except UnicodeEncodeError:
            return _encode_octets(text.encode("utf-8", "surrogatepass"))
    return text if len(raw) <= MAX_TEXT else _digest(raw, _text_head(raw))


class _Misfit(ValueError):
    """A value that no entry can hold; whoever passes it up adds the place."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why
        self.place = ""

    def __str__(self) -> str:
        return f"{self.place.lstrip('.')}: {self.why}"


def encode_value(value: object) -> Json:
    """The value as it enters an entry: long text by digest, bytes that are not UTF-8 as `{"b64": ...}`.

    An integer beyond 2**53 - 1 enters as a string of its digits, a key that is no text of 1,024 bytes as `sha256:` and
    its digest. Raises ValueError, naming the place, for what no caller's input can be and an entry cannot hold: None
    (leave the field out), floats, keys that are neither text nor bytes, nesting beyond MAX_DEPTH.
    """
    return _encode(value, 2)


def _encode(value: object, depth: int) -> Json:
    # The plain types first and exactly: asking an abstract class costs more than all the rest.
    kind = type(value)
    if kind is dict or kind is list or kind is tuple:
        if depth > MAX_DEPTH:
            raise _Misfit(f"nested deeper than {MAX_DEPTH}")
        return _encode_mapping(value, depth) if isinstance(value, dict) else _encode_sequence(value, depth)  # type: ignore[arg-type]
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT and value.isascii() else _encode_text(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -MAX_INTEGER <= value <= MAX_INTEGER else str(int(value))
    if isinstance(value, bytes | bytearray | memoryview):
        return _encode_octets(bytes(value))
    if depth > MAX_DEPTH:
        raise _Misfit(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, Mapping):
        return _encode_mapping(value, depth)
    if isinstance(value, Sequence):
        return _encode_sequence(value, depth)
    raise _Misfit(f"a value of type {type(value).__name__} has no place in an entry")


def _encode_sequence(value: Sequence[object], depth: int) -> list[Json]:
    encoded: list[Json] = []
    try:
        for item in value:
            encoded.append(_encode(item, depth + 1))  # noqa: PERF401  the place of what fails is its length
    except _Misfit as misfit:
        misfit.place = f"[{len(encoded)}]{misfit.place}"
        raise
    return encoded


def _encode_mapping(value: Mapping[Any, object], depth: int) -> dict[str, Json]:
    encoded: dict[str, Json] = {}
    key = ""
    try:
        for given, item in value.items():
            key = given if isinstance(given, str) and len(given) <= MAX_TEXT and given.isascii() else _encode_key(given)
            while key in encoded:  # nothing a caller names may take another's place
                key += "~"
            encoded[key] = _encode(item, depth + 1)
    except _Misfit as misfit:
        misfit.place = f".{key}{misfit.place}"
        raise
    return encoded


def _encode_key(key: object) -> str:
    if not isinstance(key, str | bytes):
        raise _Misfit(f"the key {key!r} is not text"[:256])
    text = _encode_text(key) if isinstance(key, str) else _encode_octets(key)
    if isinstance(text, str):
        return text
    raw = key if isinstance(key, bytes) else key.encode("utf-8", "surrogatepass")
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


_encoder = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"), allow_nan=False)


def _escape(match: re.Match[str]) -> str:
    return json.dumps(match.group())[1:-1]


def _to_text(value: object) -> bytes:
    text = _encoder.encode(value)
    if not text.isascii() or "\x7f" in text:
        # Outside of strings JSON is printable ASCII, so whatever matches stands within one.
        text = _INVISIBLE.sub(_escape, text)
    return text.encode()


class Body(NamedTuple):
    """The part of a line that does not depend on its place in the ledger: `members` are actor and data, encoded."""

    type: str
    members: bytes


def _fit(name: str, members: dict[str, Json], budget: int) -> bytes:
    """A map as JSON within `budget` bytes: its largest members, as far as needed, by digest of their own JSON text."""
    parts = {key: _to_text(value) for key, value in members.items()}
    keys = {key: _to_text(key) for key in parts}
    total = 1 + sum(len(parts[key]) + len(keys[key]) + 2 for key in parts)
    for key in sorted(parts, key=lambda name: len(parts[name]), reverse=True):
        if total <= budget:
            break
        by_digest = _to_text({**_digest(parts[key], _text_head(parts[key])), "of": "json"})
        total += len(by_digest) - len(parts[key])
        parts[key] = by_digest
    if total > budget:
        raise ValueError(f"{name}: {len(parts)} members do not fit one line, even by digest")
    return b"{" + b",".join(keys[key] + b":" + parts[key] for key in parts) + b"}"


def check_type(type_: str) -> None:
    """Raises ValueError for what is no dotted name."""
    if len(type_) > _MAX_TYPE or _TYPE.fullmatch(type_) is None:
        raise ValueError(f"{type_!r} is not the name of an entry type")


def encode_body(type_: str, actor: Mapping[str, object], data: Mapping[str, object]) -> Body:
    """Encode what the caller says. What does not fit a line has its largest members replaced by their digests.

    Raises ValueError for a type that is no dotted name, and as `encode_value` does.
    """
    check_type(type_)
    members = {"actor": _encode_member("actor", actor), "data": _encode_member("data", data)}
    text = _to_text(members)[1:-1]
    budget = MAX_LINE - MAX_FRAME - len(type_)
    if len(text) > budget:
        actor_text = _fit("actor", members["actor"], _MAX_ACTOR)
        text = b'"actor":' + actor_text + b',"data":' + _fit("data", members["data"], budget - len(actor_text))
    return Body(type_, text)


def _encode_member(name: str, value: Mapping[str, object]) -> dict[str, Json]:
    try:
        return _encode_mapping(value, 2)
    except _Misfit as misfit:
        misfit.place = f"{name}{misfit.place}"
        raise


def build_line(seq: int, ts: str, body: Body, prev: str) -> bytes:
    """The line at `seq`, without its newline; at most MAX_LINE bytes. `prev` is the hex leaf of the line before."""
    head = f'{{"v":1,"seq":{seq},"ts":"{ts}","type":"{body.type}",'.encode()
    return b"".join((head, body.members, b',"prev":"', prev.encode(), b'"}'))


# --- reading -----------------------------------------------------------------------------------------------------


def _pairs(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise LineError("duplicate_key", f"the key {twice[:64]!r} stands twice in one object", "every key once")
    return members


def _integer(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > MAX_INTEGER:
        raise LineError("bad_number", f"the integer {text[:32]}", "at most 2**53 - 1")
    return int(text)


def _no_float(text: str) -> Json:
    raise LineError("bad_number", f"the number {text[:32]}", "an integer")


_decoder = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_int=_integer, parse_float=_no_float, parse_constant=_no_float
)
# The decoder's own C function: `raw_decode` wraps it, and translates the errors that are translated below.
_scan: Callable[[str, int], tuple[dict[str, Json], int]] = _decoder.scan_once  # type: ignore[attr-defined]
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")


def _check_values(value: object, depth: int) -> None:
    if isinstance(value, dict | list):
        if depth > MAX_DEPTH:
            raise LineError("too_deep", f"nested deeper than {MAX_DEPTH}", f"at most {MAX_DEPTH} levels")
        for item in value:
            _check_values(item, depth + 1)
            if isinstance(value, dict):
                _check_values(value[item], depth + 1)
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise LineError("bad_text", "a string with half of a surrogate pair", "Unicode text") from None
    elif value is None:
        raise LineError("bad_value", "a null", "the field left out")


def _decode(line: bytes) -> dict[str, Json]:
    if len(line) > MAX_LINE:
        raise LineError("line_too_long", f"{len(line)} bytes", f"at most {MAX_LINE}")
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise LineError("bad_text", f"byte {error.start} is not UTF-8", "UTF-8") from None
    if not text.startswith("{"):
        raise LineError("bad_json", "the line does not begin with a brace", "one JSON object")
    try:
        value, end = _scan(text, 0)
    except LineError:
        raise
    except RecursionError:
        raise LineError("too_deep", f"nested deeper than {MAX_DEPTH}", f"at most {MAX_DEPTH} levels") from None
    except (ValueError, StopIteration) as error:
        raise LineError("bad_json", f"not JSON: {error}", "one JSON object") from None
    if end != len(text):
        raise LineError("bad_json", f"text after the object, at character {end}", "one JSON object")
    if line.count(b"{") + line.count(b"[") > MAX_DEPTH or b"null" in line or _SURROGATE.search(line):
        _check_values(value, 1)
    return value


def parse_line(line: bytes) -> Entry:
    """Read one line (without its newline) strictly. Its place in the chain is the caller's to check.

    Raises LineError: not UTF-8, not one JSON object, a duplicate key, a field missing or unknown, a value out of range.
    """
    fields = _decode(line)
    if fields.keys() != _FIELD_SET:
        missing, unknown = _FIELD_SET - fields.keys(), fields.keys() - _FIELD_SET
        what = f"the field {min(missing)!r} is missing" if missing else f"unknown field {min(unknown)[:64]!r}"
        raise LineError("bad_fields", what, ", ".join(_FIELDS))
    v, seq, ts, type_ = fields["v"], fields["seq"], fields["ts"], fields["type"]
    actor, data, prev = fields["actor"], fields["data"], fields["prev"]
    if type(v) is not int or v != 1:
        raise LineError("bad_version", f"v is {v!r}", "1")
    if type(seq) is not int or seq < 0:
        raise LineError("bad_seq", f"seq is {seq!r}", "a whole number")
    if not isinstance(ts, str) or not is_timestamp(ts):
        raise LineError("bad_ts", f"ts is {ts!r}"[:80], "YYYY-MM-DDTHH:MM:SS.nnnnnnnnnZ")
    if not isinstance(type_, str) or len(type_) > _MAX_TYPE or _TYPE.fullmatch(type_) is None:
        raise LineError("bad_type", f"type is {type_!r}"[:80], "a dotted name in lower case")
    if not isinstance(actor, dict):
        raise LineError("bad_actor", "actor is not a map", "a map")
    if not isinstance(data, dict):
        raise LineError("bad_data", "data is not a map", "a map")
    if not isinstance(prev, str) or _HEX64.fullmatch(prev) is None:
        raise LineError("bad_prev", f"prev is {prev!r}"[:80], "64 hexadecimal digits in lower case")
    return Entry(seq, ts, type_, actor, data, prev, leaf_hash(line), line)
