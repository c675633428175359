"""As much of HTTP/1.1 (RFC 9112) as a witness is spoken to with, read strictly and bounded; sans-I/O.

    reader = Reader()
    for request in reader.feed(data): ...             # HttpError: answer with its status, and close

What could be read in two ways is refused: lines that end otherwise than in CR LF, folded or doubled fields, two
lengths, any transfer coding.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from immured.ledger.witness import MAX_BODY

__all__ = ["CONTINUE", "MAX_HEAD", "HttpError", "Reader", "Request", "response"]

MAX_HEAD: Final = 8 * 1024
"""Bytes of a request's first line and its fields."""
_MAX_FIELDS: Final = 64
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_LINE: Final = re.compile(rb"([A-Z]{1,16}) ([\x21-\x7e]+) HTTP/1\.([01])")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\x20-\x7e\x80-\xff\t]*)")
_LENGTH: Final = re.compile(rb"0|[1-9][0-9]{0,8}")


class HttpError(ValueError):
    """Not a request that is answered: `status` says why, and the connection is of no use any more."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """`target` as it was sent; `keep`: another may follow on the connection."""

    method: str
    target: str
    body: bytes
    keep: bool


@dataclass(frozen=True, slots=True)
class _Head:
    method: str
    target: str
    length: int
    keep: bool


class Reader:
    """What has arrived on one connection. It holds no more than a request and what came behind it at once."""

    __slots__ = ("_data", "_head", "expects")

    def __init__(self) -> None:
        self._data = bytearray()
        self._head: _Head | None = None
        self.expects = False
        """The client waits for `CONTINUE` before it sends the body."""

    @property
    def begun(self) -> bool:
        """Whether a request has begun that is not whole."""
        return bool(self._data) or self._head is not None

    def feed(self, data: bytes) -> Iterator[Request]:
        """Take what arrived; every request that is whole now. Raises HttpError."""
        self._data += data
        while (request := self._next()) is not None:
            yield request

    def _next(self) -> Request | None:
        if self._head is None:
            end = self._data.find(b"\r\n\r\n", 0, MAX_HEAD)
            if end < 0:
                if len(self._data) >= MAX_HEAD:
                    raise HttpError(431, f"the request's head is over {MAX_HEAD} bytes")
                first, ended, _ = self._data.partition(b"\n")
                if ended and not (first.endswith(b"\r") and _LINE.fullmatch(first[:-1])):
                    raise HttpError(400, "the first line is none of HTTP/1.1")
                return None
            lines = bytes(self._data[:end]).split(b"\r\n")
            del self._data[: end + 4]
            self._head = self._read_head(lines)
            self.expects = self.expects and len(self._data) < self._head.length
        head = self._head
        if len(self._data) < head.length:
            return None
        body = bytes(self._data[: head.length])
        del self._data[: head.length]
        self._head, self.expects = None, False
        return Request(head.method, head.target, body, head.keep)

    def _read_head(self, lines: list[bytes]) -> _Head:
        first = _LINE.fullmatch(lines[0])
        if first is None:
            raise HttpError(400, "the first line is none of HTTP/1.1")
        if len(lines) - 1 > _MAX_FIELDS:
            raise HttpError(431, f"the request has over {_MAX_FIELDS} fields")
        fields: dict[str, bytes] = {}
        for line in lines[1:]:
            found = _FIELD.fullmatch(line)
            if found is None:
                raise HttpError(400, "a field of the request is not of the form `name: value`")
            name = found[1].decode().lower()
            if name in fields and name in _ONCE:
                raise HttpError(400, f"the field {name} is there twice")
            fields[name] = found[2].strip(b" \t")
        return self._checked(first[1].decode(), first[2].decode(), first[3] == b"1", fields)

    def _checked(self, method: str, target: str, modern: bool, fields: dict[str, bytes]) -> _Head:
        if "transfer-encoding" in fields:
            raise HttpError(501, "a body comes with its length here, and with no transfer coding")
        if modern and "host" not in fields:
            raise HttpError(400, "the field Host is missing")
        length = fields.get("content-length")
        if length is None and method == "POST":
            raise HttpError(411, "a body comes with its length here")
        if length is not None and _LENGTH.fullmatch(length) is None:
            raise HttpError(400, "the body's length is no number")
        size = int(length or b"0")
        if size > MAX_BODY:
            raise HttpError(413, f"the body is over {MAX_BODY} bytes")
        expected = fields.get("expect", b"").lower()
        if expected not in (b"", b"100-continue"):
            raise HttpError(417, "nothing but 100-continue is known to be expected")
        self.expects = modern and bool(expected)
        options = {one.strip() for one in fields.get("connection", b"").lower().split(b",")}
        keep = b"close" not in options and (modern or b"keep-alive" in options)
        return _Head(method, target, size, keep)


_ONCE: Final = frozenset({"host", "content-length", "transfer-encoding", "expect", "connection"})


def response(status: int, body: bytes, content_type: str, *, keep: bool, more: tuple[str, ...] = ()) -> bytes:
    """A whole response. `more`: other fields, `Name: value`."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Error"
    fields = [
        f"HTTP/1.1 {status} {phrase}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "X-Content-Type-Options: nosniff",
        f"Connection: {'keep-alive' if keep else 'close'}",
        *more,
    ]
    return "\r\n".join(fields).encode() + b"\r\n\r\n" + body
