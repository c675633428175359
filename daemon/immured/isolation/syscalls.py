"""System calls by name: their numbers and groups, and the walls that no profile moves (profiles/seccomp/).

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
from typing import Final, Literal, NamedTuple, cast, get_args

from immured import _core
from immured._abi import lib
from immured.errors import ConfigurationError
from immured.shipped import shipped

__all__ = [
    "Architecture",
    "Condition",
    "Explained",
    "Rule",
    "Walls",
    "action_text",
    "damaged",
    "elsewhere",
    "explained",
    "groups",
    "names",
    "numbers",
    "parse_action",
    "parse_condition",
    "profile_names",
    "read",
    "walls",
]

Architecture = Literal["x86_64", "aarch64"]
Condition = tuple[int, int, int, int]
"""`(argument, compare, value, mask)`, as `_core.seccomp_compile` takes it."""

SCHEMA: Final = 1
ALLOW: Final = lib.SECCOMP_RET_ALLOW
_ACTIONS: Final = {
    "allow": ALLOW,
    "log": lib.SECCOMP_RET_LOG,
    "trap": lib.SECCOMP_RET_TRAP,
    "kill": lib.SECCOMP_RET_KILL_PROCESS,
    "kill_thread": lib.SECCOMP_RET_KILL_THREAD,
    "notify": lib.SECCOMP_RET_USER_NOTIF,
}
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


class Rule(NamedTuple):
    """One rule of a guarded call: where all conditions hold, `action` (SECCOMP_RET_* with its data)."""

    conditions: tuple[Condition, ...]
    action: int


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
    base form would allow it. `learned` are the calls that only a learning run's filter watches, and without conditions.
    """

    unexplained: frozenset[str]
    watched: Mapping[str, tuple[Condition, ...]]
    learned: frozenset[str]


def parse_condition(text: str) -> Condition:
    """`argN[:64] [& MASK] OP VALUE` or `argN[:64] in LOW..HIGH` as numbers.

    Raises:
        ValueError: it has another form, or a mask stands before an ordering.
    """
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a condition")
    argument, wide, mask, comparison, value, low, high = match.groups()
    if any(int(number, 0) > _ALL[True] for number in (mask, value, low, high) if number is not None):
        raise ValueError(f"{text!r} has a number of more than 64 bits")
    width = _core.COMPARE_WIDE if wide else 0
    if comparison is None:
        return int(argument), _core.COMPARE_IN | width, int(low, 0), int(high, 0)
    if mask is not None and comparison not in ("==", "!="):
        raise ValueError(f"{text!r}: a mask goes with == and != only")
    masked = _ALL[bool(wide)] if mask is None else int(mask, 0)
    return int(argument), _COMPARISONS[comparison] | width, int(value, 0), masked


def parse_action(text: str) -> int:
    """`allow`, `log`, `errno:NAME`, `trap`, `kill`, `kill_thread` or `notify` as SECCOMP_RET_* with its data.

    `errno:0`: the call is not carried out, and its caller told that it was.

    Raises:
        ValueError: it is none of these.
    """
    if text in _ACTIONS:
        return _ACTIONS[text]
    by_name = {"errno:0": 0} | {f"errno:{name}": number for number, name in errno.errorcode.items()}
    if text not in by_name:
        raise ValueError(f"{text!r} is not an action")
    return lib.SECCOMP_RET_ERRNO | by_name[text]


def action_text(action: int) -> str:
    """The word that `parse_action` reads as this action; an errno without a name as its number."""
    if action & lib.SECCOMP_RET_ACTION_FULL == lib.SECCOMP_RET_ERRNO:
        number = action & lib.SECCOMP_RET_DATA
        return f"errno:{errno.errorcode.get(number, number)}"
    return next(word for word, known in _ACTIONS.items() if known == action & lib.SECCOMP_RET_ACTION_FULL)


def read(name: str) -> str:
    """A file of profiles/seccomp/. Raises ConfigurationError `profile_missing`."""
    try:
        return shipped("profiles", "seccomp", name).read_text("utf-8")
    except FileNotFoundError as missing:
        raise ConfigurationError(
            "profile_missing", f"the package lacks profiles/seccomp/{name}", "reinstall immured"
        ) from missing


def _table(name: str) -> Mapping[str, object]:
    table = tomllib.loads(read(name))
    if table.get("schema") != SCHEMA:
        raise damaged(name, f"schema is {table.get('schema')!r}, not {SCHEMA}")
    return table


def damaged(name: str, why: str) -> ConfigurationError:
    """What a fault in a file of the package's is."""
    return ConfigurationError("profile_invalid", f"profiles/seccomp/{name}: {why}", "reinstall immured")


def _known(name: str, calls: object) -> frozenset[str]:
    """The calls of a list, every one of which must be in numbers.tsv, once."""
    listed = cast("list[str]", calls)
    for call in listed:
        if call not in names():
            raise damaged(name, f"{call} is not a system call")
    if len(set(listed)) != len(listed):
        raise damaged(name, f"a call is listed twice in {' '.join(listed)}")
    return frozenset(listed)


@cache
def numbers(architecture: Architecture) -> Mapping[str, int]:
    """Every system call of an architecture and its number."""
    column = 1 + get_args(Architecture).index(architecture)
    rows = (line.split("\t") for line in read("numbers.tsv").splitlines() if not line.startswith("#"))
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}


@cache
def names() -> frozenset[str]:
    """Every system call of one architecture or the other."""
    return frozenset(numbers("x86_64").keys() | numbers("aarch64").keys())


@cache
def elsewhere() -> frozenset[str]:
    """System calls of other architectures alone."""
    lines = (line for line in read("elsewhere.txt").splitlines() if not line.startswith("#"))
    return frozenset(" ".join(lines).split())


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
            raise damaged("walls.toml", str(fault)) from fault
        for call in _known("walls.toml", guard["calls"]):
            if call in guards:
                raise damaged("walls.toml", f"{call} is guarded twice")
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
            raise damaged("explain.toml", str(fault)) from fault
        for call in _known("explain.toml", group["calls"]):
            if call in watched:
                raise damaged("explain.toml", f"{call} is watched twice")
            if call in walls().needed:
                raise damaged("explain.toml", f"{call} is needed before there is a notifier")
            watched[call] = conditions
    unexplained = _known("explain.toml", table["unexplained"])
    if unexplained - walls().never:
        raise damaged("explain.toml", f"not refused always: {', '.join(sorted(unexplained - walls().never))}")
    return Explained(unexplained, watched, learned=_known("explain.toml", table["learned"]))


@cache
def profile_names() -> tuple[str, ...]:
    """The names of the profiles that the package holds, sorted."""
    others = {"explain", "groups", "walls"}
    listing = (entry.name for entry in shipped("profiles", "seccomp").iterdir())
    return tuple(sorted({name.removesuffix(".toml") for name in listing if name.endswith(".toml")} - others))
