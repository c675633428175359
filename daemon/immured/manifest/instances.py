"""With which values a manifest's parameters are tried, so that what it may then admit is seen. Pure.

A place that a parameter fills in may come to lie above, at or below any other place that is named, and no other case
differs from these: so those are tried, and what lies nowhere near (`/home/${project}`). Of numbers the two ends, of a
choice all of it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.manifest.declared import checked, sample
from immured.manifest.parameters import fill
from immured.manifest.places import places_of

if TYPE_CHECKING:
    from immured.manifest.schema import Filesystem, Manifest, Parameter

__all__ = ["Tried", "filled", "most_tries", "texts_of", "tries"]

_MAX_TRIES: Final = 48
_MIN_TRIES: Final = 6
_MAX_PLACES: Final = 2000
"""In all tries together: of manifests with many paths fewer are made."""
_MAX_VALUES: Final = 24
_MAX_DEPTH: Final = 32
_DECIMAL: Final = re.compile(r"0|-?[1-9][0-9]{0,15}", re.ASCII)

Values = dict[str, str | int]


@dataclass(frozen=True, slots=True)
class Tried:
    """`values`, each whole. `all`: there are no further ones that could differ."""

    values: tuple[Values, ...]
    all: bool


def tries(manifest: Manifest, other: Manifest) -> Tried:
    """The values with which `manifest` is to be compared with `other`; the first are those that lie near nothing."""
    if not manifest.parameters:
        return Tried(({},), all=True)
    named = {*_places(manifest.filesystem), *_places(other.filesystem)}
    places = _Places(named, manifest, other)
    candidates = [_candidates(one, places) for one in manifest.parameters]
    whole = all(len(one) <= _MAX_VALUES for one in candidates) and not places.beyond
    candidates = [one[:_MAX_VALUES] for one in candidates]
    names = [one.name for one in manifest.parameters]
    most = most_tries(manifest, other)
    combined = itertools.islice(itertools.product(*candidates), most)
    values = [dict(zip(names, one, strict=True)) for one in combined]
    count = 1
    for one in candidates:
        count *= len(one)
    if count > most:  # each by itself, then
        first = values[0]
        values = [first | {name: one} for name, several in zip(names, candidates, strict=True) for one in several]
    values = list({tuple(one.items()): one for one in values}.values())
    return Tried(tuple(values[:most]), all=whole and count <= most)


def most_tries(one: Manifest, other: Manifest) -> int:
    """How often they are compared at most."""
    places = sum(len(places_of(each.filesystem).points) for each in (one, other))
    return max(_MIN_TRIES, min(_MAX_TRIES, _MAX_PLACES // places))


def filled(manifest: Manifest, values: Mapping[str, str | int]) -> Manifest | None:
    """The manifest with these values, as far as it declares them, and samples for the rest; None: it refuses them."""
    if not manifest.parameters:
        return manifest
    given = {one.name: values.get(one.name, sample(one)) for one in manifest.parameters}
    try:
        return fill(manifest, given)
    except Refused:
        return None


class _Places:
    """Where parameters stand in the [filesystem] of manifests, and what is named there. `beyond`: a value may lie near
    a named path in more ways than are looked for."""

    def __init__(self, named: Iterable[bytes], *manifests: Manifest) -> None:
        upwards = [_upwards(path) for path in named]
        self.beyond = any(len(one) == _MAX_DEPTH for one in upwards)
        self.paths = {path.decode() for path in itertools.chain.from_iterable(upwards) if _is_text(path)}
        self.parts = {part for path in self.paths for part in path.split("/") if part}
        self._written = [text for one in manifests for text in texts_of((one.template or {}).get("filesystem"))]

    def values(self, parameter: Parameter) -> list[str]:
        """What makes a named path, or a part of one, of a text that the parameter stands in."""
        mark, slash = f"${{{parameter.name}}}", parameter.type == "text" and not _is_beyond(parameter, "/")
        found: set[str] = set()
        for text in self._written:
            for piece in [text] if slash else text.split("/"):
                if mark not in piece:
                    continue
                before, _, after = piece.partition(mark)
                if "$" in before + after:  # another parameter, or a dollar
                    self.beyond = True
                    continue
                near = self.paths if slash else self.parts
                for one in near:
                    if len(one) > len(before) + len(after) and one.startswith(before) and one.endswith(after):
                        found.add(one[len(before) : len(one) - len(after)])
        return sorted(found)


def _candidates(parameter: Parameter, places: _Places) -> list[str | int]:
    found: list[str | int] = []
    if parameter.type == "integer":
        numbers = [int(one) for one in places.values(parameter) if _DECIMAL.fullmatch(one)]
        found = [*(one for one in (parameter.most, parameter.least) if one is not None), *numbers]
    elif parameter.type == "choice":
        found = list(parameter.values)
    elif parameter.type == "path":
        mark = f"/${{{parameter.name}}}"
        within = [one.decode() for one in parameter.within]
        inside = (path for path in places.paths if any(_is_in(path, one) for one in within))
        near = sorted({*inside, *within}, key=lambda path: (path.count("/"), path))
        found = [*(one.decode() + mark for one in parameter.within), *near, *(path.rstrip("/") + mark for path in near)]
    else:
        found = [sample(parameter), *places.values(parameter), *sorted(places.parts)]
    return list(itertools.islice((one for one in dict.fromkeys(found) if _fits(parameter, one)), _MAX_VALUES + 1))


def _is_in(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory}/")


def texts_of(value: object) -> Iterator[str]:
    """Every text within."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from texts_of(one)
    elif isinstance(value, list):
        for one in value:
            yield from texts_of(one)


def _is_beyond(parameter: Parameter, value: str) -> bool:
    try:
        checked(parameter, value)
    except ValueError:
        return True
    return False


def _upwards(path: bytes) -> list[bytes]:
    """The path and the directories above it; of one that is very deep, those next to it."""
    found = [path]
    while path != b"/" and len(found) < _MAX_DEPTH:
        path = path.rpartition(b"/")[0] or b"/"
        found.append(path)
    return found


def _fits(parameter: Parameter, value: str | int) -> bool:
    try:
        return checked(parameter, value) == value
    except ValueError:
        return False


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _places(filesystem: Filesystem) -> Iterable[bytes]:
    """Every path that is named, of the host's and inside."""
    for bind in (*filesystem.read, *filesystem.write, *filesystem.capture):
        yield bind.source
        yield bind.target
    yield from (one.target for one in filesystem.tmpfs)
    yield from (one.target for one in filesystem.volumes)
    yield from (*filesystem.hide, *filesystem.noexec)
    yield from (getattr(one, "path", b"/") for one in filesystem.protect)
