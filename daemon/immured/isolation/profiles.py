"""Profiles: which system calls a payload gets, as TOML; those of the package, and those that an operator installed.

A profile moves nothing that `profiles/seccomp/walls.toml` holds. docs/syscalls.md specifies the format.
"""

from __future__ import annotations

import difflib
import errno
import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any, Final

from immured._abi import lib
from immured.isolation import syscalls
from immured.isolation.syscalls import Rule

__all__ = ["MAX_CONDITIONS", "SHIPPED", "Profile", "Profiles", "nearest", "parse_profile", "permits"]

SCHEMA: Final = 1
MAX_CONDITIONS: Final = 8
"""Of one rule: a guard of the walls' and a watch of the explained form come on top."""
MAX_RULES: Final = 64
"""Of one call."""

_REFUSE: Final = lib.SECCOMP_RET_ERRNO | errno.EPERM


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """What a profile says of every call that the tables know; the walls come on top. Made once, compared by identity.

    Of the rules of a call in `rules` the first that holds decides, and none: `default`. Other calls are allowed where
    `calls` has them, else they get `default`. Actions are SECCOMP_RET_* with their data. `digest`: `sha256:` and hex,
    of the file that it came from.
    """

    name: str
    about: str
    calls: frozenset[str]
    rules: Mapping[str, tuple[Rule, ...]] = field(default_factory=lambda: MappingProxyType({}))
    default: int = _REFUSE
    digest: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Profiles:
    """The profiles that a manifest may name: the package's, and `installed` beside them. Compared by identity."""

    installed: Mapping[str, Profile] = field(default_factory=lambda: MappingProxyType({}))

    def names(self) -> tuple[str, ...]:
        """Sorted."""
        return tuple(sorted({*syscalls.profile_names(), *self.installed}))

    def __getitem__(self, name: str) -> Profile:
        """A profile by name. Raises KeyError."""
        if name in self.installed:
            return self.installed[name]
        if name not in syscalls.profile_names():
            raise KeyError(name)
        return _shipped(name)


SHIPPED: Final = Profiles()


def permits(action: int) -> bool:
    """Whether the kernel carries the call out."""
    return action & lib.SECCOMP_RET_ACTION_FULL in (lib.SECCOMP_RET_ALLOW, lib.SECCOMP_RET_LOG)


def nearest(name: str, known: Iterable[str]) -> str:
    """`, did you mean NAME?`, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {near[0]}?" if near else ""


def parse_profile(name: str, text: str) -> Profile:
    """A profile's TOML.

    Raises:
        ValueError: what is wrong, and where: an unknown or missing name, a call that no profile can allow, a needed
            call that is not allowed, a condition or an action of another form.
    """
    try:
        table = tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    _check_names("the profile", table, {"schema", "about", "groups", "calls", "default", "rules"})
    if type(table.get("schema")) is not int or table["schema"] != SCHEMA:
        raise ValueError(f"schema is {table.get('schema')!r}, not {SCHEMA}")
    about = table.get("about", "")
    if not isinstance(about, str):
        raise ValueError("about is text")  # noqa: TRY004 - every fault of the file is of one kind
    named = frozenset(_calls("calls", table.get("calls", [])))
    calls = named.union(*(_group(group) for group in _texts("groups", table.get("groups", []))))
    profile = Profile(
        name=name,
        about=about,
        calls=calls,
        rules=MappingProxyType(_rules(table.get("rules", []), named)),
        default=_action("default", table.get("default", "errno:EPERM")),
        digest=f"sha256:{hashlib.sha256(text.encode()).hexdigest()}",
    )
    _check_walls(profile)
    return profile


def _group(group: str) -> frozenset[str]:
    if group not in syscalls.groups():
        raise ValueError(f"{group} is not a group{nearest(group, syscalls.groups())}")
    return syscalls.groups()[group]


def _rules(listed: object, named: frozenset[str]) -> dict[str, tuple[Rule, ...]]:
    if not isinstance(listed, list):
        raise ValueError("rules is a list of tables: [[rules]]")  # noqa: TRY004
    found: dict[str, list[Rule]] = {}
    for index, entry in enumerate(listed):
        where = f"rules[{index}]"
        if not isinstance(entry, dict):
            raise ValueError(f"{where} is no table")  # noqa: TRY004
        _check_names(where, entry, {"calls", "when", "then"})
        conditions = tuple(map(syscalls.parse_condition, _texts(f"{where}.when", entry.get("when", []))))
        if len(conditions) > MAX_CONDITIONS:
            raise ValueError(f"{where}.when has {len(conditions)} conditions, at most {MAX_CONDITIONS}")
        rule = Rule(conditions, _action(f"{where}.then", entry.get("then")))
        for call in _calls(f"{where}.calls", entry.get("calls")):
            if call in named:
                raise ValueError(f"{where}.calls: {call} is in calls as well")
            found.setdefault(call, []).append(rule)
            if len(found[call]) > MAX_RULES:
                raise ValueError(f"{where}.calls: {call} has more than {MAX_RULES} rules")
    return {call: tuple(rules) for call, rules in found.items()}


def _check_walls(profile: Profile) -> None:
    walls = syscalls.walls()
    permitted = profile.calls.difference(profile.rules)
    permitted |= {call for call, rules in profile.rules.items() if any(permits(rule.action) for rule in rules)}
    if permitted & (walls.never | walls.absent):
        raise ValueError(f"no profile can allow {', '.join(sorted(permitted & (walls.never | walls.absent)))}")
    for call in sorted(walls.needed):
        if call in profile.rules or not (call in profile.calls or permits(profile.default)):
            raise ValueError(f"no program runs without {call}: it must be in calls or in a group, without rules")


def _check_names(where: str, table: Mapping[str, object], known: set[str]) -> None:
    for name in table:
        if name not in known:
            raise ValueError(f"{where} has the unknown name {name!r}{nearest(name, known)}")


def _texts(where: str, listed: object) -> list[str]:
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise ValueError(f"{where} is a list of text")
    if len(set(listed)) != len(listed):
        raise ValueError(f"{where} lists something twice")
    return listed


def _calls(where: str, listed: object) -> list[str]:
    calls = _texts(where, listed)
    for call in calls:
        if call not in syscalls.names():
            raise ValueError(f"{where}: {call} is not a system call{nearest(call, syscalls.names())}")
    return calls


def _action(where: str, text: Any) -> int:
    if not isinstance(text, str):
        raise ValueError(f"{where} is text, such as 'allow' or 'errno:EPERM'")  # noqa: TRY004
    if text == "notify":
        raise ValueError(f"{where}: nobody listens to a profile's notifications")
    try:
        return syscalls.parse_action(text)
    except ValueError as fault:
        raise ValueError(f"{where}: {fault}") from fault


@cache
def _shipped(name: str) -> Profile:
    try:
        return parse_profile(name, syscalls.read(f"{name}.toml"))
    except ValueError as fault:
        raise syscalls.damaged(f"{name}.toml", str(fault)) from fault
