"""Characters that nobody sees, or that turn what is read around. Pure."""

from __future__ import annotations

from typing import Final

__all__ = ["BLANK", "unseen"]

BLANK: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\u180b\u180c\u180d\u180e\u180f") | {
    chr(code) for first, last in ((0xFE00, 0xFE0F), (0xE0100, 0xE01EF)) for code in range(first, last + 1)
}
"""Letters, marks and symbols by their category, and nothing to the eye."""


def unseen(text: str) -> str:
    """The first such character: a control or format character, a space other than the plain one, one that no font has,
    or a blank. Empty: all of it is seen."""
    if text.isascii() and text.isprintable():
        return ""
    return next((one for one in text if not one.isprintable() or one in BLANK), "")
