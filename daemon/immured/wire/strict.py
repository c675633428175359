"""Maps with a fixed set of names: an unknown name is an error that names the nearest known one.

fields = take(value, "args", known=("argv", "cwd"), code="bad_argument")
argv = fields.required("argv", list)
cwd = fields.optional("cwd", str)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final, TypeVar

from immured.errors import Refused

__all__ = ["Fields", "kind_of", "nearest", "shown", "take"]

T = TypeVar("T")

_NAMES: Final[dict[type, str]] = {
    bool: "a boolean",
    int: "an integer",
    str: "a str",
    bytes: "bin",
    list: "an array",
    dict: "a map",
    float: "a float",
}


def kind_of(value: object) -> str:
    """The name of a value's kind, as messages say it: `an integer`, `a map`."""
    return _NAMES.get(type(value), f"a {type(value).__name__}")


def shown(text: str, limit: int = 64) -> str:
    """A stranger's text for a message: quoted, escaped, bounded."""
    return repr(text if len(text) <= limit else text[:limit] + "…")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant."""
    import difflib  # only a mistake needs it

    found = difflib.get_close_matches(name[:64], list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def take(
    value: object, where: str, known: Collection[str], *, code: str = "bad_argument", unknown: str = "unknown_field"
) -> Fields:
    """`value` as a map that holds no other names than `known`. `where` is how messages call it (`args.limits`).

    Raises Refused `code` when it is no map, `unknown` for a name that is not known.
    """
    if not isinstance(value, Mapping):
        raise Refused(code, f"{where} is {kind_of(value)}, not a map", details={"where": where})
    for name in value:
        if name not in known:
            raise _unknown(str(name), where, known, unknown)
    return Fields(value, where, code)


class Fields:
    """A map whose names have been checked; values are taken out by name and exact kind."""

    __slots__ = ("code", "values", "where")

    def __init__(self, values: Mapping[str, object], where: str, code: str) -> None:
        self.values = values
        self.where = where
        self.code = code

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def required(self, name: str, kind: type[T]) -> T:
        """The value, exactly of `kind` (True is no integer). Raises Refused `code` when absent or of another kind."""
        value = self.optional(name, kind)
        if value is None:
            raise self.wrong(name, "is missing")
        return value

    def optional(self, name: str, kind: type[T]) -> T | None:
        """The value, exactly of `kind`, or None when the name is absent."""
        value = self.values.get(name)
        if value is None and name not in self.values:
            return None
        if type(value) is not kind:
            raise self.wrong(name, f"is {kind_of(value)}, not {_NAMES.get(kind, kind.__name__)}")
        return value

    def integer(self, name: str, low: int, high: int) -> int | None:
        """An integer within low..high, or None when the name is absent."""
        value = self.optional(name, int)
        if value is not None and not low <= value <= high:
            raise self.wrong(name, f"is {value}; it may be {low} to {high}")
        return value

    def sized(self, name: str, kind: type[T], low: int, high: int) -> T | None:
        """A str, bin, array or map of low..high characters, bytes or items, or None when the name is absent."""
        value = self.optional(name, kind)
        if value is not None and not low <= len(value) <= high:  # type: ignore[arg-type]
            wanted = str(low) if low == high else f"{low} to {high}"
            raise self.wrong(name, f"has a length of {len(value)}; it may be {wanted}")  # type: ignore[arg-type]
        return value

    def wrong(self, name: str, problem: str, remedy: str = "") -> Refused:
        """A Refused of this map's code that names the field."""
        path = f"{self.where}.{name}" if self.where else name
        return Refused(self.code, f"{path} {problem}", remedy, details={"field": path})


def _unknown(name: str, where: str, known: Collection[str], code: str) -> Refused:
    meant = nearest(name, known)
    remedy = f"did you mean {meant!r}?" if meant else f"known are {', '.join(sorted(known))}"
    details: dict[str, object] = {"field": name[:64], "where": where}
    if meant:
        details["nearest"] = meant
    spelled = ascii(name[:64]) + "…" * (len(name) > 64)  # so a letter that looks like the right one is told apart
    return Refused(code, f"{where} holds an unknown field {spelled}", remedy, details=details)
