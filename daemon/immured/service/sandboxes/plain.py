"""Frozen dataclasses as plain values (maps, arrays, str, bytes, numbers, None) and back, for a later broker. Pure.

A field that is missing takes its default, so that a newer version reads what an older one wrote; a field that is not
known is an error, so that nothing that an older one does not understand is left out of what it enforces.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

__all__ = ["from_plain", "to_plain"]

T = TypeVar("T")


def to_plain(value: object) -> object:
    """Whatever is made of dataclasses, tuples and plain values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = {one.name: to_plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
        return {"": type(value).__name__, **named}
    if isinstance(value, tuple):
        return [to_plain(one) for one in value]
    return value


def from_plain(kind: type[T], value: object) -> T:
    """A `kind` again. Raises ValueError for what `to_plain` did not make of one."""
    return typing.cast("T", _read(kind, value))


def _read(kind: Any, value: object) -> object:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _of_union(inner, value)
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{value!r} is no array")
        kinds = [inner[0]] * len(value) if inner[-1:] == (Ellipsis,) else list(inner)
        if len(kinds) != len(value):
            raise ValueError(f"{len(value)} items instead of {len(kinds)}")
        return tuple(_read(one, item) for one, item in zip(kinds, value, strict=True))
    if dataclasses.is_dataclass(kind):
        return _dataclass(typing.cast("type[Any]", kind), value)
    if type(value) is not (type(None) if kind is None else kind):
        raise ValueError(f"{value!r} is no {kind}")
    return value


def _of_union(kinds: tuple[Any, ...], value: object) -> object:
    name = value.get("") if isinstance(value, Mapping) else None
    for kind in kinds:
        if name is None and kind in (type(value), None if value is None else ...):
            return value
        if name is not None and dataclasses.is_dataclass(kind) and typing.cast("type[Any]", kind).__name__ == name:
            return _dataclass(typing.cast("type[Any]", kind), value)
    raise ValueError(f"{value!r} is none of {kinds}")


def _dataclass(kind: type[Any], value: object) -> object:
    if not isinstance(value, Mapping) or value.get("") != kind.__name__:
        raise ValueError(f"{value!r} is no {kind.__name__}")
    hints = typing.get_type_hints(kind)
    given = {name: _read(hints[name], one) for name, one in value.items() if name and name in hints}
    if len(given) != len(value) - 1:
        raise ValueError(f"{kind.__name__} has no {', '.join(sorted(set(value) - set(hints) - {''}))}")
    try:
        return kind(**given)
    except TypeError as error:
        raise ValueError(str(error)) from None
