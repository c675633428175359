"""Places inside what may be written that stay as they are: named one by one, or by group (profiles/protect.toml)."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Final

from immured.manifest.paths import beneath
from immured.manifest.schema import Protected, ProtectGroup
from immured.shipped import shipped

if TYPE_CHECKING:
    from collections.abc import Iterable

    from immured.manifest.schema import Filesystem

__all__ = ["ABSENT", "group_names", "protected_in_captures", "protected_places"]

ABSENT: Final = ("held", "passed", "refused")
"""What becomes of a protected place that is not there: its name is held until the run is over, it may be made, or the
run is refused."""


def _read_groups() -> dict[str, tuple[tuple[bytes, str], ...]]:
    tables = tomllib.loads(shipped("profiles", "protect.toml").read_text("utf-8"))
    return {
        name: tuple((path.encode(), absent) for absent, paths in table.items() for path in paths)
        for name, table in tables.items()
    }


_GROUPS: Final = _read_groups()  # now: a broker that has dropped its rights opens no files of the package


def group_names() -> tuple[str, ...]:
    """The shipped groups, without their `@`."""
    return tuple(_GROUPS)


def protected_places(filesystem: Filesystem) -> tuple[Protected, ...]:
    """Every protected place of this manifest. A group's stand beneath every target of `write` and of `capture`; a place
    that is named by itself too is as it is named there.
    """
    found = {one.path: one for one in filesystem.protect if isinstance(one, Protected)}
    for path, absent in _grouped(filesystem):
        found.setdefault(path, Protected(path, absent))
    return tuple(found.values())


def protected_in_captures(filesystem: Filesystem) -> dict[bytes, tuple[bytes, ...]]:
    """The target of every captured directory, with what is protected in it, from there (empty: all of it).

    A payload may write to these: to the layer. They are never accepted.
    """
    targets = [bind.target for bind in filesystem.capture]
    found: dict[bytes, list[bytes]] = {target: [] for target in targets}
    others = [bind.target for bind in (*filesystem.read, *filesystem.write)]
    others += [one.target for one in filesystem.tmpfs] + [one.target for one in filesystem.volumes]
    for one in protected_places(filesystem):
        around = [target for target in (*targets, *others) if beneath(one.path, target)]
        nearest = max(around, key=len, default=None)
        if nearest in found:
            found[nearest].append(one.path[len(nearest) :].strip(b"/"))
    return {target: tuple(names) for target, names in found.items()}


def _grouped(filesystem: Filesystem) -> Iterable[tuple[bytes, str]]:
    for group in filesystem.protect:
        if isinstance(group, ProtectGroup):
            for bind in (*filesystem.write, *filesystem.capture):
                for name, absent in _GROUPS[group.name]:
                    yield bind.target + b"/" + name, absent
