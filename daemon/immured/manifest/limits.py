"""[limits]: reading them, and tightening them for one run. Pure."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.manifest.schema import LIMITS, Limits
from immured.manifest.units import (
    MAX_PROCESSORS,
    cores_of,
    cpus_of,
    duration_of,
    show_cores,
    show_cpus,
    show_duration,
    show_size,
    size_of,
)
from immured.wire.strict import Fields, kind_of, shown, take

if TYPE_CHECKING:
    from collections.abc import Callable

    from immured.manifest.schema import Manifest

__all__ = ["NONE", "limits_of", "show_limit", "tighten"]

NONE: Final = "none"
"""How a manifest writes that there is no such limit."""

_DAY: Final = 86_400 * 10**9


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one limit is written, its bounds, and whether a run may be without it.

    `wider(asked, most)`: whether a run asks for more than its manifest allows. `given`: what it limits is also a right,
    to what others then do not get, so a run may have it only where its manifest has.
    """

    read: Callable[[str], int]
    show: Callable[[int], str]
    low: int
    high: int
    optional: bool = True
    numeric: bool = True  # a bare number may be written
    wider: Callable[[int, int], bool] = operator.gt
    given: bool = False


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ValueError("write a whole number")
    return int(text)


_KINDS: Final = {
    "memory": _Kind(size_of, show_size, 1 << 20, 1 << 50, optional=False),
    "swap": _Kind(size_of, show_size, 0, 1 << 50, optional=False),
    "pids": _Kind(_count, str, 1, 1 << 22, optional=False),
    "files": _Kind(_count, str, 4, 1 << 20, optional=False),
    "cpus": _Kind(cpus_of, show_cpus, 10, 4_096_000),
    "cpu_time": _Kind(duration_of, show_duration, 10**6, 366 * _DAY, numeric=False),
    "wall": _Kind(duration_of, show_duration, 10**6, 366 * _DAY, numeric=False),
    "disk": _Kind(size_of, show_size, 1 << 16, 1 << 50),
    "output": _Kind(size_of, show_size, 0, 1 << 50),
    "io": _Kind(size_of, show_size, 4096, 1 << 50),
    "cores": _Kind(
        cores_of, show_cores, 1, (1 << MAX_PROCESSORS) - 1, numeric=False, wider=lambda asked, most: asked & ~most != 0
    ),
    "pin": _Kind(_count, str, 1, MAX_PROCESSORS, given=True),
}


def limits_of(values: object, where: str, base: Limits, *, code: str, unknown: str) -> Limits:
    """`base` with what `values` (a map) names.

    Raises Refused `code`, or `unknown` for a name that is no limit's, naming the field beneath `where`.
    """
    fields = take(values, where, (*LIMITS, "strict"), code=code, unknown=unknown)
    given: dict[str, int | None] = {name: _limit(fields, name) for name in LIMITS if name in fields}
    strict = fields.optional("strict", bool)
    found = replace(base, **given)  # type: ignore[arg-type]
    return found if strict is None else replace(found, strict=strict)


def tighten(manifest: Manifest, values: object) -> Manifest:
    """The manifest with a run's own `limits`, none of which may be wider. Its digest stays the manifest's.

    Raises Refused `bad_argument`, naming the limit, what it may be at most, and what was asked for; `unknown_field`.
    """
    limits = limits_of(values, "limits", manifest.limits, code="bad_argument", unknown="unknown_field")
    for name, kind in _KINDS.items():
        most, asked = getattr(manifest.limits, name), getattr(limits, name)
        if kind.given and most is None and asked is not None:
            raise Refused(
                "bad_argument",
                f"limits.{name} is {show_limit(name, asked)}, and the manifest gives none",
                f"leave it out, or use a manifest with limits.{name}",
                details={"field": f"limits.{name}"},
            )
        if most is not None and (asked is None or kind.wider(asked, most)):
            raise Refused(
                "bad_argument",
                f"limits.{name} is {show_limit(name, asked)}, more than the manifest's {show_limit(name, most)}",
                f"ask for at most {show_limit(name, most)}, or use a manifest that allows more",
                details={"field": f"limits.{name}", "most": show_limit(name, most)},
            )
    if manifest.limits.strict and not limits.strict:
        raise Refused(
            "bad_argument",
            "limits.strict is false, and the manifest's is true",
            "leave it out",
            details={"field": "limits.strict"},
        )
    return replace(manifest, limits=limits)


def show_limit(name: str, value: int | None) -> str:
    """A limit as a manifest would write it: `512M`, `1.5`, `60s`, `none`."""
    return NONE if value is None else _KINDS[name].show(value)


def _limit(fields: Fields, name: str) -> int | None:
    kind, value = _KINDS[name], fields.values[name]
    if value == NONE:
        if not kind.optional:
            raise fields.wrong(name, "is 'none'; every run has this limit")
        return None
    number = _number(fields, name, kind, value)
    if not kind.low <= number <= kind.high:
        low, high = kind.show(kind.low), kind.show(kind.high)
        raise fields.wrong(name, f"is {shown(str(value))}; it may be {low} to {high}", _with_unit(kind, value))
    return number


def _with_unit(kind: _Kind, value: object) -> str:
    """What was probably meant by a size of a few bytes: a remedy, or nothing."""
    text = str(value)
    if kind.read is not size_of or not (text.isascii() and text.isdecimal()):
        return ""
    meant = f"{text}M"
    return f"did you mean {meant!r}?" if len(text) < 8 and kind.low <= size_of(meant) <= kind.high else ""


def _number(fields: Fields, name: str, kind: _Kind, value: object) -> int:
    if name == "cpus" and isinstance(value, (int, float)) and not isinstance(value, bool):
        value = _decimal(value)
    elif type(value) is int and kind.numeric:
        return value
    if not isinstance(value, str):
        raise fields.wrong(name, f"is {kind_of(value)}; {_hint(kind)}")
    try:
        return kind.read(value)
    except ValueError as error:
        raise fields.wrong(name, f"is {shown(value)}; {error}") from None


def _decimal(value: int | float) -> str:
    """As it would be written out: what is too precise is refused and not rounded."""
    number, _, exponent = repr(value).partition("e")
    if exponent:
        number = _moved(number, int(exponent))
    return number.removesuffix(".0")


def _moved(number: str, places: int) -> str:
    """A decimal number with its point so many places further to the right, or to the left."""
    sign = "-" if number.startswith("-") else ""
    whole, _, part = number.removeprefix("-").partition(".")
    if places < 0:
        return f"{sign}0.{(whole + part).rjust(len(part) - places, '0')}"
    part = part.ljust(places, "0")
    return f"{sign}{whole}{part[:places]}" + (f".{part[places:]}" if part[places:] else "")


def _hint(kind: _Kind) -> str:
    try:
        kind.read("?")
    except ValueError as error:
        return str(error)
    raise AssertionError("a question mark is no limit")
