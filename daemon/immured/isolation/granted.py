"""Which system calls a manifest's [syscalls] grant, for who compares two of them. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from immured.errors import Refused
from immured.isolation import syscalls
from immured.isolation.profiles import SHIPPED, Profiles, permits
from immured.isolation.seccomp import expand

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from immured.manifest.schema import Syscalls

__all__ = ["granted"]


def granted(profiles: Profiles = SHIPPED) -> Callable[[Syscalls], Mapping[str, str] | None]:
    """What says of [syscalls] which calls it grants, by name; beside a call that is granted for some arguments alone,
    its rules as text. The walls, which are the same for all, are left out. None: a name in it is not known here.
    """

    @lru_cache(maxsize=64)
    def calls(given: Syscalls) -> Mapping[str, str] | None:
        try:
            profile = profiles[given.profile]
            added, denied = frozenset(expand(given.allow)), frozenset(expand(given.deny))
        except (KeyError, Refused):
            return None
        walls = syscalls.walls()
        found: dict[str, str] = {}
        for call in syscalls.names() - denied - walls.never - walls.absent:
            rules = profile.rules.get(call)
            if call in added or (rules is None and (call in profile.calls or permits(profile.default))):
                found[call] = ""
            elif rules is not None and (permits(profile.default) or any(permits(rule.action) for rule in rules)):
                found[call] = repr((rules, profile.default))
        return found

    return calls
