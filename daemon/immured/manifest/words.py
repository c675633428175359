"""Patterns of a command's words: which arguments a manifest lets a program have. Pure.

    ["log", "--oneline", "*"]       exactly three words, the last of them anything
    ["diff", "..."]                 `diff`, and any number of further words
    ["--depth=*", "https://*.git"]  `*` is any run of bytes within a word, an empty one too; `\\*` an asterisk

A pattern never is a regular expression: it is matched in time that grows with the word's length alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

__all__ = ["REST", "escape", "fits", "word_problem"]

REST: Final = b"..."
"""As the last word of a pattern: any number of further words."""

_SPECIAL: Final = (b"\\", b"*", b".")


def fits(words: Sequence[bytes], pattern: Sequence[bytes]) -> bool:
    """Whether these words, in this order, are what the pattern describes."""
    if pattern and pattern[-1] == REST:
        pattern, words = pattern[:-1], words[: len(pattern) - 1]
    return len(words) == len(pattern) and all(
        _fits(word, _pieces(one)) for word, one in zip(words, pattern, strict=True)
    )


def escape(raw: bytes) -> bytes:
    """The pattern that these bytes alone fit, whatever stands around it."""
    for special in _SPECIAL:
        raw = raw.replace(special, b"\\" + special)
    return raw


def word_problem(pattern: bytes) -> str:
    """Why it is no pattern of a word, in words; empty where it is one."""
    if b"\0" in pattern:
        return "holds a NUL"
    rest = pattern.replace(b"\\\\", b"").replace(b"\\*", b"").replace(b"\\.", b"")
    return "holds a `\\` before something else than `*`, `.` or `\\`" if b"\\" in rest else ""


def _fits(word: bytes, pieces: tuple[bytes, ...]) -> bool:
    first, last = pieces[0], pieces[-1]
    if len(pieces) == 1:
        return word == first
    if len(word) < len(first) + len(last) or not word.startswith(first) or not word.endswith(last):
        return False
    at, end = len(first), len(word) - len(last)
    for piece in pieces[1:-1]:  # the leftmost place is never a worse one
        at = word.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True


@lru_cache(maxsize=4096)
def _pieces(pattern: bytes) -> tuple[bytes, ...]:
    """The literal bytes between the asterisks."""
    pieces, piece, escaped = [], bytearray(), False
    for byte in pattern:
        if escaped or byte not in b"\\*":
            piece.append(byte)
            escaped = False
        elif byte == 0x5C:
            escaped = True
        else:
            pieces.append(bytes(piece))
            piece.clear()
    return (*pieces, bytes(piece))
