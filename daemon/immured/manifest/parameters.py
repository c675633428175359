"""A manifest's parameters filled in for one run. Pure.

What a manifest's signature covers is its text, with the bounds of every parameter: a value within them, put where the
text says, is what was signed. Nothing else comes of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.manifest.builtin import class_manifest
from immured.manifest.declared import checked
from immured.manifest.read import read_filled
from immured.manifest.substitute import Substitution
from immured.wire.strict import nearest

if TYPE_CHECKING:
    from immured.manifest.schema import Manifest, Parameter

__all__ = ["fill", "filled_map", "require_filled"]

_NOTHING: Final[Mapping[str, object]] = {}
_MAX_FILLED_BEFORE: Final = 256
_filled_before: Final[dict[tuple[str, tuple[tuple[str, str | int], ...]], Manifest]] = {}


def fill(manifest: Manifest, given: Mapping[str, object] | None = None) -> Manifest:
    """The manifest with these values in their places, and defaults for the rest; `given` of it says with which.

    One without parameters is itself. The same values again are only looked up.

    Raises Refused `bad_argument`: for a parameter that is not declared or has no value, and for a value outside of its
    bound, naming both.
    """
    given = _NOTHING if given is None else given
    if manifest.template is None:
        if given:
            raise _undeclared(manifest, min(given))
        return manifest
    if beyond := given.keys() - {one.name for one in manifest.parameters}:
        raise _undeclared(manifest, min(beyond))
    values = {one.name: _value(manifest, one, given) for one in manifest.parameters}
    known = (manifest.digest, tuple(sorted(values.items())))
    filled = _filled_before.get(known)
    if filled is None:
        filled = _read(manifest, values)
        if len(_filled_before) >= _MAX_FILLED_BEFORE:
            _filled_before.clear()
        _filled_before[known] = filled
    return filled


def filled_map(manifest: Manifest, given: Mapping[str, object] | None = None) -> dict[str, object]:
    """What a manifest with parameters says once these values are in their places: a map that declares none any more.

    Raises Refused as `fill` does. `manifest.template` is not None.
    """
    values = dict(fill(manifest, given).given)
    said = Substitution(manifest.parameters, values).apply(manifest.template or {})
    return {name: value for name, value in said.items() if name != "parameters"}


def require_filled(manifest: Manifest) -> None:
    """Raises Refused `bad_argument` where samples still stand in for what a run gives: nothing runs by those."""
    if manifest.template is not None:
        raise _refused(
            manifest, manifest.parameters[0].name, "was not filled in", f"give {_bound(manifest.parameters[0])}"
        )


def _read(manifest: Manifest, values: Mapping[str, str | int]) -> Manifest:
    try:
        return read_filled(manifest, values, class_manifest)
    except Refused as error:
        raise Refused(
            "bad_argument",
            f"with these parameters {error.message}",
            error.remedy or "give others",
            details={**error.details, "parameters": dict(values), "manifest": manifest.digest},
        ) from None


def _value(manifest: Manifest, parameter: Parameter, given: Mapping[str, object]) -> str | int:
    if parameter.name not in given:
        if parameter.default is None:
            raise _refused(manifest, parameter.name, "has no value", f"give one: {_bound(parameter)}")
        return parameter.default
    try:
        return checked(parameter, given[parameter.name])
    except ValueError as error:
        raise _refused(manifest, parameter.name, str(error), f"it may be {_bound(parameter)}") from None


def _bound(parameter: Parameter) -> str:
    """What it may be, in words."""
    if parameter.type == "path":
        return f"a path beneath {' or '.join(one.decode() for one in parameter.within)}"
    if parameter.type == "integer":
        return f"a whole number, {parameter.least} to {parameter.most}"
    if parameter.type == "choice":
        return f"one of {', '.join(parameter.values)}"
    return f"1 to {parameter.longest} characters of {parameter.pattern}"


def _undeclared(manifest: Manifest, name: str) -> Refused:
    declared = [one.name for one in manifest.parameters]
    if not declared:
        return _refused(manifest, name, "is not declared: the manifest has no parameters", "leave it out")
    meant = nearest(name, declared)
    remedy = f"did you mean {meant!r}?" if meant else f"declared are {', '.join(sorted(declared))}"
    return _refused(manifest, name, "is not declared by the manifest", remedy)


def _refused(manifest: Manifest, name: str, problem: str, remedy: str) -> Refused:
    named = name if name.isascii() and name.isidentifier() else ascii(name[:64])
    return Refused(
        "bad_argument",
        f"parameters.{named} {problem}",
        remedy,
        details={"field": f"parameters.{name[:64]}", "manifest": manifest.digest},
    )
