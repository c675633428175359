"""What an act says when it went otherwise."""

from __future__ import annotations

__all__ = ["Unexpected", "expect"]


class Unexpected(Exception):
    """It went otherwise; the text says how."""


def expect(right: bool, otherwise: object) -> None:
    """`otherwise` is what was found instead: a sentence, or a run's result."""
    if not right:
        raise Unexpected(otherwise if isinstance(otherwise, str) else _told(otherwise))


def _told(result: object) -> str:
    """A run's result, in short."""
    shown = {name: getattr(result, name, None) for name in ("cause", "exit_code", "signal", "failure", "enforcement")}
    tail = bytes(getattr(result, "stderr", b""))[-300:].decode(errors="replace")
    return f"{shown} {tail}"
