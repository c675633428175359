"""Finding an entry in a stream of lines that has no index: each says its own number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from immured.ledger.entry import MAX_LINE, LineError, parse_line

__all__ = ["offset_of"]

_REACH: Final = 2 * (MAX_LINE + 1)  # from anywhere, a whole line begins and ends within so much


def offset_of(read: Callable[[int, int], bytes], start: int, end: int, seq: int) -> int:
    """Where the line of entry `seq` begins; `end`, where that is the one that would come next.

    `start` begins a line and `end` ends one. Raises LookupError: it is not there; LineError, OSError.
    """
    low, high = start, end  # the line begins in between
    while high - low > 2 * _REACH:
        middle = (low + high) // 2
        data = read(middle, _REACH)
        begins = data.find(b"\n") + 1
        ends = data.find(b"\n", begins)
        if not begins or ends < 0:
            raise LineError("line_too_long", f"no line within {_REACH} bytes of byte {middle}", "a newline")
        if parse_line(data[begins:ends]).seq <= seq:
            low = middle + begins
        else:
            high = middle + begins
    at, data = low, read(low, high - low + _REACH)[: end - low]
    *lines, _ = data.split(b"\n")
    for line in lines:
        if parse_line(line).seq == seq:
            return at
        at += len(line) + 1
    if at == end and lines and parse_line(lines[-1]).seq == seq - 1:
        return end
    raise LookupError(f"entry {seq} is not between byte {start} and byte {end}")
