"""Frames: a 4-byte big-endian length, then that many bytes.

The reader is sans-I/O and asks for bytes (`wanted`) up to the end of the header or of the body, never beyond: where one
read spans two frames the kernel no longer says whose the descriptors are. Descriptors belong to a frame's first read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from immured.errors import Refused

__all__ = [
    "HEADER",
    "MAX_DESCRIPTORS",
    "MAX_FRAME",
    "Frame",
    "FrameReader",
    "encode_frame",
    "encode_header",
    "header_of",
]

HEADER: Final = 4
MAX_FRAME: Final = 1 << 20
MAX_DESCRIPTORS: Final = 3
_CHUNK: Final = 65_536 + 256
"""A data frame's body, at its largest, in one read."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole frame. Whoever receives it owns `fds` and closes them."""

    body: bytes
    fds: tuple[int, ...] = ()


def header_of(header: bytes) -> int:
    """The body's length, 1..MAX_FRAME. Raises Refused `bad_frame` or `frame_too_large`."""
    if len(header) != HEADER:
        raise ValueError(f"a frame's header is {HEADER} bytes, not {len(header)}")
    length = int.from_bytes(header, "big")
    if length == 0:
        raise Refused("bad_frame", "a frame of no bytes", "send a length of at least 1")
    if length > MAX_FRAME:
        raise Refused(
            "frame_too_large",
            f"a frame of {length} bytes; the limit is {MAX_FRAME}",
            "send large input as data frames",
            details={"length": length, "limit": MAX_FRAME},
        )
    return length


def encode_frame(body: bytes) -> bytes:
    """Header and body. Raises Refused as `header_of` does."""
    return encode_header(len(body)) + body


def encode_header(length: int) -> bytes:
    """The header of a body of that length. Raises Refused as `header_of` does."""
    header = length.to_bytes(HEADER, "big") if length <= MAX_FRAME else b"\xff" * HEADER
    header_of(header)
    return header


class FrameReader:
    """One stream's incoming frames.

        data = <read at most reader.wanted() bytes>
        frame = reader.feed(data, fds)

    After a Refused the stream is out of step for good: answer once, then close. At the stream's end, `at_boundary`
    tells a clean end from a torn frame. The descriptors of an unfinished frame are in `held` and still to be closed.
    """

    __slots__ = ("_body", "_buffer", "_failed", "held")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._body = 0  # the body's length; 0 while the header is read
        self._failed = False
        self.held: tuple[int, ...] = ()

    @property
    def at_boundary(self) -> bool:
        """No byte of a next frame has come."""
        return not self._body and not self._buffer

    @property
    def buffered(self) -> int:
        """Bytes held of an unfinished header or body."""
        return len(self._buffer)

    def wanted(self) -> int:
        """How many bytes to read at most; at least 1. Large bodies are asked for in parts, so that a declared length
        alone makes nobody allocate it."""
        return min((self._body or HEADER) - len(self._buffer), _CHUNK)

    def feed(self, data: bytes, fds: Sequence[int] = (), *, truncated: bool = False) -> Frame | None:
        """Takes 1..wanted() bytes, with the descriptors that came along; the frame, when these were its last bytes.

        `truncated` is MSG_CTRUNC: the kernel threw descriptors away. Raises Refused `bad_frame`, `frame_too_large` or
        `bad_descriptor`; the caller then still owns `fds`.
        """
        if self._failed:
            raise ValueError("the stream is out of step")
        if not 0 < len(data) <= self.wanted():
            raise ValueError(f"fed {len(data)} bytes, wanted 1..{self.wanted()}")
        if fds or truncated:
            self._take_descriptors(fds, truncated)
        self._buffer += data
        if not self._body:
            if len(self._buffer) < HEADER:
                return None
            try:
                self._body = header_of(bytes(self._buffer))
            except Refused:
                self._failed = True
                raise
            self._buffer.clear()
            return None
        if len(self._buffer) < self._body:
            return None
        frame = Frame(bytes(self._buffer), self.held)
        self._buffer = bytearray()
        self._body, self.held = 0, ()
        return frame

    def take_held(self) -> tuple[int, ...]:
        """The descriptors of an unfinished frame, the caller's to close from here on."""
        fds, self.held = self.held, ()
        return fds

    def _take_descriptors(self, fds: Sequence[int], truncated: bool) -> None:
        problem = None
        if not self.at_boundary:
            problem = "descriptors after a frame's first byte"
        elif truncated or len(fds) > MAX_DESCRIPTORS:
            problem = f"more than {MAX_DESCRIPTORS} descriptors with one frame"
        if problem:
            self._failed = True
            raise Refused("bad_descriptor", problem, "send descriptors in the sendmsg that sends a frame's first byte")
        self.held = tuple(fds)
