"""Values out of what a ledger entry's `data` holds: of the kind that was written, or ValueError. Sans-I/O."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["digest", "optional_text", "text", "texts", "whole"]


def text(given: Mapping[str, object], name: str) -> str:
    """A string."""
    value = given.get(name)
    if not isinstance(value, str):
        raise ValueError(f"`{name}` is no text")  # noqa: TRY004 - every fault is of one kind
    return value


def optional_text(given: Mapping[str, object], name: str) -> str | None:
    """A string, or None where the name is absent."""
    return text(given, name) if name in given else None


def texts(given: Mapping[str, object], name: str) -> tuple[str, ...]:
    """A list of strings."""
    value = given.get(name)
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"`{name}` is no list of texts")
    return tuple(value)


def whole(given: Mapping[str, object], name: str) -> int:
    """An integer."""
    value = given.get(name)
    if type(value) is not int:
        raise ValueError(f"`{name}` is no integer")
    return value


def digest(given: Mapping[str, object], name: str) -> bytes:
    """The 32 bytes of `sha256:<hex>`."""
    raw = bytes.fromhex(text(given, name).removeprefix("sha256:"))
    if len(raw) != 32:
        raise ValueError(f"`{name}` is no SHA-256")
    return raw
