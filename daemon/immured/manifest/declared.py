"""[parameters]: what a manifest lets a run fill in, and what each may be. Pure.

A declaration is a bound that the manifest's author, and whoever signed it, set: a value outside of it is refused.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from immured.manifest.items import INVALID, read_list, read_path, show
from immured.manifest.paths import beneath, path_of
from immured.manifest.schema import Parameter
from immured.manifest.unseen import unseen
from immured.wire.strict import kind_of, shown, take

if TYPE_CHECKING:
    from immured.wire.strict import Fields

__all__ = ["MAX_VALUE", "NAME", "checked", "extremes", "read_parameters", "sample"]

NAME: Final = r"[a-z][a-z0-9_]{0,31}"
"""A parameter's name, as a regular expression."""

MAX_VALUE: Final = 1024
"""Bytes of a value. Longer texts enter the ledger by their digest alone, and an entry shall say what ran."""

_NAME: Final = re.compile(NAME, re.ASCII)
_DECIMAL: Final = re.compile(r"0|-?[1-9][0-9]{0,15}", re.ASCII)
_MAX_PARAMETERS: Final = 32
_MAX_WITHIN: Final = 16
_MAX_VALUES: Final = 64
_MAX_CHOICE: Final = 256
_MAX_PATTERN: Final = 128
_MOST: Final = 2**53 - 1
_BOUNDS: Final = {
    "path": ("within",),
    "text": ("pattern", "longest"),
    "integer": ("least", "most"),
    "choice": ("values",),
}
"""What says how far a value of each type may go. All of it is required: there is no parameter without bounds."""


def read_parameters(top: Fields) -> tuple[Parameter, ...]:
    """Those that the manifest declares. Raises Refused `manifest_invalid`."""
    tables = top.optional("parameters", dict) or {}
    if len(tables) > _MAX_PARAMETERS:
        raise top.wrong("parameters", f"has {len(tables)} entries; at most {_MAX_PARAMETERS}")
    found = []
    for name, table in tables.items():
        if not _NAME.fullmatch(name):
            raise top.wrong(
                "parameters", f"holds the name {shown(name)}; write a-z, 0-9 and `_`, at most 32, the first a letter"
            )
        found.append(_parameter(name, table))
    return tuple(found)


def _parameter(name: str, table: object) -> Parameter:
    where = f"manifest.parameters.{name}"
    known = ("type", "default", *(bound for bounds in _BOUNDS.values() for bound in bounds))
    fields = take(table, where, known, code=INVALID, unknown=INVALID)
    kind = fields.required("type", str)
    if kind not in _BOUNDS:
        raise fields.wrong("type", f"is {shown(kind)}; it may be {', '.join(map(repr, _BOUNDS))}")
    for bound in known[2:]:
        if bound in fields and bound not in _BOUNDS[kind]:
            owner = next(one for one, bounds in _BOUNDS.items() if bound in bounds)
            raise fields.wrong(bound, f"is for a parameter of type {owner!r}, and this one is {kind!r}")
        if bound not in fields and bound in _BOUNDS[kind]:
            raise fields.wrong(bound, f"is missing; it bounds a parameter of type {kind!r}")
    found = _bounded(fields, name, kind)
    if "default" not in fields:
        return found
    try:
        default = checked(found, fields.values["default"])
    except ValueError as error:
        raise fields.wrong("default", str(error)) from None
    return _bounded(fields, name, kind, default)


def _bounded(fields: Fields, name: str, kind: str, default: str | int | None = None) -> Parameter:
    if kind == "path":
        return Parameter(name, kind, within=_within(fields), default=default)
    if kind == "choice":
        values = read_list(fields, "values", (), _read_choice, _MAX_VALUES)
        if not values:
            raise fields.wrong("values", "is empty", "name what it may be")
        if twice := next((one for one in values if values.count(one) > 1), ""):
            raise fields.wrong("values", f"names {shown(twice)} twice", "name each value once")
        return Parameter(name, kind, values=values, default=default)
    if kind == "text":
        pattern = fields.sized("pattern", str, 1, _MAX_PATTERN) or ""
        try:
            _characters(pattern)
        except ValueError as error:
            raise fields.wrong("pattern", f"is {shown(pattern)}, which {error}", "such as 'a-z0-9_.-'") from None
        longest = fields.integer("longest", 1, MAX_VALUE)
        return Parameter(name, kind, pattern=pattern, longest=longest, default=default)
    least, most = fields.integer("least", -_MOST, _MOST), fields.integer("most", -_MOST, _MOST)
    if least is not None and most is not None and least > most:
        raise fields.wrong("least", f"is {least}, more than `most`, which is {most}")
    return Parameter(name, kind, least=least, most=most, default=default)


def _within(fields: Fields) -> tuple[bytes, ...]:
    found = read_list(fields, "within", (), read_path, _MAX_WITHIN)
    if not found:
        raise fields.wrong("within", "is empty", "name the directories in which it lies")
    if b"/" in found:
        raise fields.wrong("within", "holds '/', which is no bound", "name the directories in which it lies")
    for one in found:
        try:
            _check_text(one.decode("utf-8", "surrogateescape"))  # bytes that are no text cannot be seen either
        except ValueError as error:
            raise fields.wrong("within", f"holds {show(one)}, which {error}") from None
    return found


def _read_choice(fields: Fields, name: str, value: object) -> str:
    if not isinstance(value, str):
        raise fields.wrong(name, f"holds {kind_of(value)}; the values of a choice are text")
    if not value or len(value) > _MAX_CHOICE:
        raise fields.wrong(name, f"holds a value of {len(value)} characters; it has 1 to {_MAX_CHOICE}")
    try:
        _check_text(value)
    except ValueError as error:
        raise fields.wrong(name, f"holds {shown(value)}, which {error}") from None
    return value


def checked(parameter: Parameter, value: object) -> str | int:
    """The value, as it is filled in. A whole number may also come as text. Raises ValueError: what is wrong with it,
    in words that go on after the parameter's name, and its bound.
    """
    if parameter.type == "integer":
        return _integer(parameter, value)
    if not isinstance(value, str):
        raise ValueError(f"is {kind_of(value)}, not a text")  # noqa: TRY004 - what is wrong with it, to whoever says where
    if parameter.type == "choice":
        if value not in parameter.values:
            raise ValueError(f"is {shown(value)}; it may be {', '.join(parameter.values)}")
        return value
    try:
        _check_text(value)
        if parameter.type == "path":
            return _path(parameter, value)
        if ".." in value:
            raise ValueError("holds `..`")
    except ValueError as error:
        raise ValueError(f"is {shown(value)}, which {error}") from None
    if not 1 <= len(value) <= (parameter.longest or 0):
        raise ValueError(f"has {len(value)} characters; it may have 1 to {parameter.longest}")
    if beyond := next((one for one in value if one not in _characters(parameter.pattern)), ""):
        raise ValueError(f"is {shown(value)}, which holds {beyond!a}; it may hold {parameter.pattern}")
    return value


def sample(parameter: Parameter) -> str | int:
    """A value within its bounds, for where a manifest is looked at and nobody gave any."""
    if parameter.default is not None:
        return parameter.default
    if parameter.type == "path":
        return f"{parameter.within[0].decode()}/{parameter.name}"
    if parameter.type == "choice":
        return parameter.values[0]
    if parameter.type == "integer":
        return parameter.most or 0
    return min(_characters(parameter.pattern) - {"."} or {"."}, key=lambda one: (not one.isalnum(), one))


def extremes(parameter: Parameter) -> tuple[str | int, ...]:
    """The values between which all others lie, of an integer; all values of a choice; else a sample."""
    if parameter.least is not None and parameter.most is not None:
        return parameter.least, parameter.most
    return parameter.values or (sample(parameter),)


def _integer(parameter: Parameter, value: object) -> int:
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = int(value)
    if type(value) is not int:
        raise ValueError(f"is {shown(value) if isinstance(value, str) else kind_of(value)}, not a whole number")
    if parameter.least is None or parameter.most is None or not parameter.least <= value <= parameter.most:
        raise ValueError(f"is {value}; it may be {parameter.least} to {parameter.most}")
    return value


def _path(parameter: Parameter, value: str) -> str:
    raw = path_of(value)
    if len(raw) > MAX_VALUE:
        raise ValueError(f"has {len(raw)} bytes; the path of a parameter has at most {MAX_VALUE}")
    if not any(beneath(raw, one) for one in parameter.within):
        raise ValueError(f"does not lie beneath {' or '.join(one.decode() for one in parameter.within)}")
    return raw.decode()


def _check_text(value: str) -> None:
    """What nobody can read, and what reads like something else, is filled in nowhere."""
    if "\0" in value:
        raise ValueError("holds a NUL")
    if beyond := unseen(value):
        raise ValueError(f"holds the character U+{ord(beyond):04X}, which cannot be seen")


@lru_cache(maxsize=256)
def _characters(pattern: str) -> frozenset[str]:
    """The characters of a bracket expression's inside: themselves, and ranges `a-z`; a `-` at either end is itself."""
    found: set[str] = set()
    at = 0
    while at < len(pattern):
        one, rest = pattern[at], pattern[at + 1 : at + 3]
        if not " " <= one <= "~" or one in "\\[]^":
            raise ValueError(f"holds {one!a}; write printable ASCII, but none of `\\[]^`")
        if len(rest) == 2 and rest[0] == "-":
            last = rest[1]
            if not (one.isalnum() and last.isalnum() and one <= last and _kind(one) == _kind(last)):
                raise ValueError(f"holds the range {one}-{last}; write one of one case or of digits")
            found.update(map(chr, range(ord(one), ord(last) + 1)))
            at += 3
        else:
            found.add(one)
            at += 1
    return frozenset(found)


def _kind(character: str) -> tuple[bool, bool]:
    return character.isdigit(), character.isupper()
