"""System calls by name: their numbers, groups and profiles, and the walls that no profile moves (profiles/seccomp/).

Everything here is data of the package, read once per process; a fault in it is a `ConfigurationError` that names the
file. Nothing here knows BPF: `immured.isolation.seccomp` makes filters of it.
"""

from __future__ import annotations

import errno
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final, Literal, cast, get_args

from immured import _core
from immured._abi import lib
from immured.errors import ConfigurationError

__all__ = [
    "Architecture",
    "Condition",
    "Explained",
    "Profile",
    "Rule",
    "Walls",
    "explained",
    "groups",
    "numbers",
    "profile",
    "profile_names",
    "walls",
]

Architecture = Literal["x86_64", "aarch64"]
Condition = tuple[int, int, int, int]
"""`(argument, compare, value, mask)`, as `_core.seccomp_compile` takes it."""

SCHEMA: Final = 1
ALLOW: Final = lib.SECCOMP_RET_ALLOW
_ALL: Final = {False: 0xFFFF_FFFF, True: 0xFFFF_FFFF_FFFF_FFFF}
_NUMBER: Final = r"(0o[0-7]+|0x[0-9a-f]+|[0-9]+)"
_CONDITION: Final = re.compile(
    rf"arg([0-5])(:64)? (?:(?:& {_NUMBER} )?(==|!=|<=|>=|<|>) {_NUMBER}|in {_NUMBER}\.\.{_NUMBER})"
)
_COMPARISONS: Final = {
    "==": _core.COMPARE_EQ,
    "!=": _core.COMPARE_NE,
    "<": _core.COMPARE_LT,
    "<=": _core.COMPARE_LE,
    ">": _core.COMPARE_GT,
    ">=": _core.COMPARE_GE,
}


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a guarded call: where all conditions hold, `action` (SECCOMP_RET_* with its data)."""

    conditions: tuple[Condition, ...]
    action: int


@dataclass(frozen=True, slots=True)
class Profile:
    """The calls that a profile allows, guarded ones only as their guard says."""

    name: str
    about: str
    calls: frozenset[str]


@dataclass(frozen=True, slots=True)
class Walls:
    """What no profile and no manifest can change (profiles/seccomp/walls.toml says what each means)."""

    never: frozenset[str]
    absent: frozenset[str]
    needed: frozenset[str]
    guards: Mapping[str, tuple[Rule, ...]]


@dataclass(frozen=True, slots=True)
class Explained:
    """What the explained form of a filter turns into notifications beside refusals (profiles/seccomp/explain.toml).

    `unexplained` calls are refused at once in both forms. A `watched` call notifies where all conditions hold and the
    base form would allow it.
    """

    unexplained: frozenset[str]
    watched: Mapping[str, tuple[Condition, ...]]


def parse_condition(text: str) -> Condition:
    """`argN[:64] [& MASK] OP VALUE` or `argN[:64] in LOW..HIGH` as numbers.

    Raises:
        ValueError: it has another form, or a mask stands before an ordering.
    """
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a condition")
    argument, wide, mask, comparison, value, low, high = match.groups()
    width = _core.COMPARE_WIDE if wide else 0
    if comparison is None:
        return int(argument), _core.COMPARE_IN | width, int(low, 0), int(high, 0)
    if mask is not None and comparison not in ("==", "!="):
        raise ValueError(f"{text!r}: a mask goes with == and != only")
    masked = _ALL[bool(wide)] if mask is None else int(mask, 0)
    return int(argument), _COMPARISONS[comparison] | width, int(value, 0), masked


def parse_action(text: str) -> int:
    """`allow`, `kill`, `log` or `errno:NAME` as SECCOMP_RET_* with its data.

    Raises:
        ValueError: it is none of these.
    """
    plain = {"allow": ALLOW, "kill": lib.SECCOMP_RET_KILL_PROCESS, "log": lib.SECCOMP_RET_LOG}
    if text in plain:
        return plain[text]
    by_name = {f"errno:{name}": number for number, name in errno.errorcode.items()}
    if text not in by_name:
        raise ValueError(f"{text!r} is not an action")
    return lib.SECCOMP_RET_ERRNO | by_name[text]


def _read(name: str) -> str:
    try:
        return files("immured").joinpath("profiles", "seccomp", name).read_text("utf-8")
    except FileNotFoundError as missing:
        raise ConfigurationError(
            "profile_missing", f"the package lacks profiles/seccomp/{name}", "reinstall immured"
        ) from missing


def _table(name: str) -> Mapping[str, object]:
    table = tomllib.loads(_read(name))
    if table.get("schema") != SCHEMA:
        raise _damaged(name, f"schema is {table.get('schema')!r}, not {SCHEMA}")
    return table


def _damaged(name: str, why: str) -> ConfigurationError:
    return ConfigurationError("profile_invalid", f"profiles/seccomp/{name}: {why}", "reinstall immured")


def _known(name: str, calls: object) -> frozenset[str]:
    """The calls of a list, every one of which must be in numbers.tsv, once."""
    listed = cast("list[str]", calls)
    known = numbers("x86_64").keys() | numbers("aarch64").keys()
    for call in listed:
        if call not in known:
            raise _damaged(name, f"{call} is not a system call")
    if len(set(listed)) != len(listed):
        raise _damaged(name, f"a call is listed twice in {' '.join(listed)}")
    return frozenset(listed)


@cache
def numbers(architecture: Architecture) -> Mapping[str, int]:
    """Every system call of an architecture and its number."""
    column = 1 + get_args(Architecture).index(architecture)
    rows = (line.split("\t") for line in _read("numbers.tsv").splitlines() if not line.startswith("#"))
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}


@cache
def groups() -> Mapping[str, frozenset[str]]:
    """Groups of calls by name."""
    table = cast("Mapping[str, Mapping[str, object]]", _table("groups.toml")["groups"])
    return {group: _known("groups.toml", body["calls"]) for group, body in table.items()}


@cache
def walls() -> Walls:
    """What no profile can change."""
    table = _table("walls.toml")
    guards: dict[str, tuple[Rule, ...]] = {}
    for guard in cast("list[Mapping[str, object]]", table["guards"]):
        listed = cast("list[Mapping[str, object]]", guard["rules"])
        try:
            rules = tuple(
                Rule(
                    tuple(map(parse_condition, cast("list[str]", rule["when"]))),
                    parse_action(cast("str", rule["then"])),
                )
                for rule in listed
            )
        except ValueError as fault:
            raise _damaged("walls.toml", str(fault)) from fault
        for call in _known("walls.toml", guard["calls"]):
            if call in guards:
                raise _damaged("walls.toml", f"{call} is guarded twice")
            guards[call] = rules
    never, absent, needed = (_known("walls.toml", table[key]) for key in ("never", "absent", "needed"))
    return Walls(never=never, absent=absent, needed=needed, guards=guards)


@cache
def explained() -> Explained:
    """What a filter's explained form hands to the notifier."""
    table = _table("explain.toml")
    watched: dict[str, tuple[Condition, ...]] = {}
    for group in cast("list[Mapping[str, object]]", table["watched"]):
        try:
            conditions = tuple(map(parse_condition, cast("list[str]", group["when"])))
        except ValueError as fault:
            raise _damaged("explain.toml", str(fault)) from fault
        for call in _known("explain.toml", group["calls"]):
            if call in watched:
                raise _damaged("explain.toml", f"{call} is watched twice")
            if call in walls().needed:
                raise _damaged("explain.toml", f"{call} is needed before there is a notifier")
            watched[call] = conditions
    unexplained = _known("explain.toml", table["unexplained"])
    if unexplained - walls().never:
        raise _damaged("explain.toml", f"not refused always: {', '.join(sorted(unexplained - walls().never))}")
    return Explained(unexplained=unexplained, watched=watched)


@cache
def profile_names() -> tuple[str, ...]:
    """The names of the profiles that the package holds, sorted."""
    others = {"explain", "groups", "walls"}
    listing = (entry.name for entry in files("immured").joinpath("profiles", "seccomp").iterdir())
    return tuple(sorted({name.removesuffix(".toml") for name in listing if name.endswith(".toml")} - others))


@cache
def profile(name: str) -> Profile:
    """A profile by name, which must be one of `profile_names()`."""
    file = f"{name}.toml"
    table = _table(file)
    calls: set[str] = set(_known(file, table.get("calls", [])))
    for group in cast("list[str]", table["groups"]):
        if group not in groups():
            raise _damaged(file, f"{group} is not a group")
        calls |= groups()[group]
    immovable = calls & (walls().never | walls().absent)
    if immovable:
        raise _damaged(file, f"no profile can allow {', '.join(sorted(immovable))}")
    return Profile(name=name, about=cast("str", table["about"]), calls=frozenset(calls))
