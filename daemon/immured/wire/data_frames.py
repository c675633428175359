"""Data frames by the gigabyte: laid out and read without a map being built, or a piece copied twice.

The bytes are those of `messages.data_body`; whatever is laid out otherwise is read by `messages.parse_data`.
"""

from __future__ import annotations

import re
from typing import Final

from immured.wire.frames import encode_header
from immured.wire.messages import DATA, MAX_DATA, Data
from immured.wire.strict_msgpack import pack

__all__ = ["DataFrames", "data_in"]

_DATA_SHELL: Final = b"\x94\x01" + pack(DATA)
_UNSIGNED: Final = b"\x90"
_DATA_FRAME: Final = re.compile(
    re.escape(_DATA_SHELL) + rb"(?:\xc4.|\xc5..|\xc6....)\x83\xa2re\xc4\x10(.{16})\xa6stream([\xa1-\xbf])", re.DOTALL
)
_DATA_VALUE: Final = re.compile(rb"\xa4data(?:\xc4(.)|\xc5(..)|\xc6(....))", re.DOTALL)


class DataFrames:
    """One stream's data frames, in parts: what stands before each piece is laid out once, and no piece is copied."""

    __slots__ = ("_before", "_whole")

    def __init__(self, nonce: bytes, stream: str) -> None:
        # A map of three, whose last value is the data: what `pack` makes of {re, stream, data}, up to there.
        self._before = b"\x83" + pack("re") + pack(nonce) + pack("stream") + pack(stream) + pack("data")
        self._whole = self._head(MAX_DATA)

    def parts(self, data: bytes) -> tuple[bytes, bytes, bytes]:
        """At most MAX_DATA bytes as a frame, its header included: to be sent one after the other."""
        if len(data) > MAX_DATA:
            raise ValueError(f"{len(data)} bytes of data in one frame; the limit is {MAX_DATA}")
        return (self._whole if len(data) == MAX_DATA else self._head(len(data))), data, _UNSIGNED

    def _head(self, length: int) -> bytes:
        inner = self._before + _bin_header(length)
        envelope = _DATA_SHELL + _bin_header(len(inner) + length) + inner
        return encode_header(len(envelope) + length + len(_UNSIGNED)) + envelope


def data_in(body: bytes) -> Data | None:
    """A frame's body, where it is a data frame laid out as the daemon does; None: to be decoded like any other.

    A stream of gigabytes is told from the rest by its first bytes, and copied once.
    """
    head = _DATA_FRAME.match(body)
    if head is None:
        return None
    end_of_name = head.end() + head[2][0] - 0xA0
    value = _DATA_VALUE.match(body, end_of_name)
    if value is None:
        return None
    length = int.from_bytes(value[value.lastindex or 1], "big")
    if length > MAX_DATA or len(body) != value.end() + length + len(_UNSIGNED) or not body.endswith(_UNSIGNED):
        return None
    shell = len(_DATA_SHELL)
    width = 1 << (body[shell] - 0xC4)
    if int.from_bytes(body[shell + 1 : shell + 1 + width], "big") != len(body) - shell - 1 - width - len(_UNSIGNED):
        return None
    try:
        name = body[head.end() : end_of_name].decode()
    except UnicodeDecodeError:
        return None
    return Data(head[1], name, body[value.end() : value.end() + length])


def _bin_header(length: int) -> bytes:
    """As msgpack does: the shortest."""
    if length < 1 << 8:
        return b"\xc4%c" % length
    return b"\xc5" + length.to_bytes(2, "big") if length < 1 << 16 else b"\xc6" + length.to_bytes(4, "big")
