"""JSON of strangers: bounded, and no name twice in an object. Pure."""

from __future__ import annotations

import json
from typing import Final

from immured.adapters.imported import invalid
from immured.wire.strict import shown

__all__ = ["MAX_TEXT", "read_json", "texts"]

MAX_TEXT: Final = 1 << 20
"""Bytes of a policy's text."""


def read_json(text: str, what: str) -> object:
    """The value. `what` is how messages call it. Raises Refused `adapter_invalid`."""
    if len(text) > MAX_TEXT:
        raise invalid(f"{what} has {len(text)} characters; at most {MAX_TEXT}", "make it smaller")

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise invalid(f"{what} names {shown(twice)} twice in one object", "say it once")
        return found

    try:
        value: object = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise invalid(f"{what} is not JSON: {reason}", "give it as the tool takes it") from None
    return value


def texts(value: object, what: str) -> list[str]:
    """A list of texts without NUL, none empty. Raises Refused `adapter_invalid`."""
    if not isinstance(value, list):
        raise invalid(f"{what} is not a list")
    for one in value:
        if not isinstance(one, str) or not one or "\0" in one:
            raise invalid(f"{what} holds {shown(str(one))}, which is no text")
    return value
