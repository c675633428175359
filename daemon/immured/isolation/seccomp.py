"""System-call filters for a run: a profile, with a manifest's own allowances and denials, compiled to BPF.

Default-deny: a call that the profile does not list is refused with EPERM, one that the tables do not know (newer than
they are) with ENOSYS, so that programs fall back; other ABIs' calls kill the process. What
`profiles/seccomp/walls.toml` holds stands above every profile and manifest.
"""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import Final, Literal, cast, get_args

from immured import _core
from immured._abi import lib
from immured.errors import ConfigurationError, Refused
from immured.isolation import syscalls
from immured.isolation.profiles import SHIPPED, Profile, Profiles, permits
from immured.isolation.syscalls import Architecture, Condition, Rule

__all__ = [
    "AUDIT_ARCH",
    "compile_profile",
    "compile_uncached",
    "expand",
    "host_architecture",
    "learnable",
    "named_calls",
    "preload",
    "profile_names",
]

AUDIT_ARCH: Final[dict[Architecture, int]] = {"x86_64": lib.AUDIT_ARCH_X86_64, "aarch64": lib.AUDIT_ARCH_AARCH64}
_REFUSE: Final = lib.SECCOMP_RET_ERRNO | errno.EPERM
_ABSENT: Final = lib.SECCOMP_RET_ERRNO | errno.ENOSYS
_KILL: Final = lib.SECCOMP_RET_KILL_PROCESS
_NOTIFY: Final = lib.SECCOMP_RET_USER_NOTIF

Form = bool | Literal["learn"]
"""Of a filter: the base one, the explained one, or that of a learning run."""

profile_names = syscalls.profile_names


def preload() -> None:
    """Read all of the package's tables now: later the process may not reach them any more."""
    for architecture in get_args(Architecture):
        syscalls.numbers(architecture)
    syscalls.groups()
    syscalls.walls()
    syscalls.explained()
    for name in syscalls.profile_names():
        SHIPPED[name]


def host_architecture() -> Architecture:
    """This machine's architecture.

    Raises:
        ConfigurationError: `unsupported_architecture`: no filter can be made for it.
    """
    machine = os.uname().machine
    if machine not in get_args(Architecture):
        raise ConfigurationError(
            "unsupported_architecture", f"there are no system-call tables for {machine}", "run on x86_64 or aarch64"
        )
    return cast("Architecture", machine)


def compile_profile(
    profile: str,
    allow: Sequence[str] = (),
    deny: Sequence[str] = (),
    arch: Architecture | None = None,
    *,
    explain: Form = False,
    profiles: Profiles = SHIPPED,
) -> bytes:
    """The filter of one run: `struct sock_filter[]`, made once per distinct request.

    Args:
        profile: one of the names of `profiles`.
        allow: more calls, by name, or groups as `@name`. A guarded call (open, socket, clone, ...) stays guarded.
        deny: calls or groups to refuse as well, with EPERM; wins over `allow` and the profile.
        arch: the architecture; this machine's where it is None.
        explain: the form that notifies: where the base form answers EPERM (but for what explain.toml leaves
            unexplained), and where it allows a call that explain.toml watches. Everything else is the same. `learn`: it
            also notifies of every call that names a path or an address, or is not in the smallest profile.
        profiles: what there is beside the package's own.

    Raises:
        Refused: `manifest_invalid`: an unknown profile, call or group; an allowance of what no profile can give; a
            denial of what every program needs; more rules than a filter holds.
        ConfigurationError: `unsupported_architecture`.
    """
    return _cached(
        profiles, profile, tuple(sorted(set(allow))), tuple(sorted(set(deny))), arch or host_architecture(), explain
    )


def compile_uncached(
    profiles: Profiles,
    name: str,
    allow: Iterable[str],
    deny: Iterable[str],
    architecture: Architecture,
    explain: Form,
) -> bytes:
    """`compile_profile` without a memory of earlier programs."""
    profile, added, denied = named_calls(name, allow, deny, profiles)
    rules: list[_Row] = []
    plain = _rows(architecture, explain, syscalls.ALLOW)
    default = _rows(architecture, explain, profile.default)
    refused = _rows(architecture, explain, _REFUSE)
    allowed = profile.calls | added
    for call, number in syscalls.numbers(architecture).items():
        if call in denied:
            rules += refused[call]
        elif call in added or call not in profile.rules:
            rules += (plain if call in allowed else default)[call]
        else:
            asked = (*profile.rules[call], Rule((), profile.default))
            rules += ((number, rule.action, rule.conditions) for rule in _rules(call, asked, explain))
    kills = not permits(profile.default) and not _is_errno(profile.default)
    try:
        return _core.seccomp_compile(
            AUDIT_ARCH[architecture],
            rules,
            fallback=_REFUSE,
            unknown=profile.default if kills else _ABSENT,
            foreign=_KILL,
        )
    except ValueError as fault:
        raise Refused(
            "manifest_invalid", f"syscalls: the filter of {name} does not compile: {fault}", "name fewer rules"
        ) from fault


def named_calls(
    name: str, allow: Iterable[str], deny: Iterable[str], profiles: Profiles = SHIPPED
) -> tuple[Profile, frozenset[str], frozenset[str]]:
    """The profile, and which calls are added to it and taken away. Raises Refused `manifest_invalid` as
    `compile_profile` does, for all but rules that do not compile."""
    walls = syscalls.walls()
    try:
        profile = profiles[name]
    except KeyError:
        raise _unknown("profile", name, profiles.names()) from None
    added = frozenset(expand(allow))
    denied = frozenset(expand(deny))
    for call in sorted(added & (walls.never | walls.absent)):
        raise Refused("manifest_invalid", f"syscalls.allow: no profile can allow {call}", f"take {call} out of allow")
    for call in sorted(denied & walls.needed):
        raise Refused("manifest_invalid", f"syscalls.deny: no program runs without {call}", f"take {call} out of deny")
    return profile, added, denied


_cached = lru_cache(maxsize=256)(compile_uncached)

_Row = tuple[int, int, tuple[Condition, ...]]


class _Rows(dict[str, tuple[_Row, ...]]):
    """Every call's rules, as the compiler takes them, where a profile says `action` to it whatever its arguments.

    Each is made when it is first asked for.
    """

    def __init__(self, architecture: Architecture, explain: Form, action: int) -> None:
        self._numbers, self._explain, self._action = syscalls.numbers(architecture), explain, action

    def __missing__(self, call: str) -> tuple[_Row, ...]:
        number = self._numbers[call]
        rules = _rules(call, (Rule((), self._action),), self._explain)
        made = self[call] = tuple((number, rule.action, rule.conditions) for rule in rules)
        return made


_rows = cache(_Rows)


def _rules(call: str, asked: tuple[Rule, ...], explain: Form) -> tuple[Rule, ...]:
    """What a profile asked for one call, under the walls. The last of its rules has no conditions."""
    walls = syscalls.walls()
    if call in walls.guards or call in walls.never or call in walls.absent:
        asked = tuple(one for rule in asked for one in _walled(call, rule))
    return _explained(call, asked, explain) if explain else asked


def _walled(call: str, rule: Rule) -> tuple[Rule, ...]:
    """One rule under the walls: what permits goes on to the call's guard; what kills stays."""
    walls = syscalls.walls()
    if call in walls.absent:
        return (Rule(rule.conditions, _ABSENT if permits(rule.action) or _is_errno(rule.action) else rule.action),)
    if not permits(rule.action):
        return (rule,)
    if call in walls.never:
        return (Rule(rule.conditions, _REFUSE),)
    return tuple(
        Rule(rule.conditions + one.conditions, rule.action if one.action == syscalls.ALLOW else one.action)
        for one in (*walls.guards[call], Rule((), _REFUSE))
    )


def _is_errno(action: int) -> bool:
    return action & lib.SECCOMP_RET_ACTION_FULL == lib.SECCOMP_RET_ERRNO


def _explained(call: str, base: tuple[Rule, ...], explain: Form) -> tuple[Rule, ...]:
    """The rules of one call with refusals that notify, and allowances of what is watched."""
    explained = syscalls.explained()
    if call in explained.unexplained:
        return base
    turned = tuple(Rule(rule.conditions, _NOTIFY if rule.action == _REFUSE else rule.action) for rule in base)
    conditions = _learned() if explain == "learn" else explained.watched
    if call not in conditions:
        return turned
    watched = conditions[call]
    if all(rule.action in (syscalls.ALLOW, _NOTIFY) for rule in turned):
        return (Rule(watched, _NOTIFY), *turned)  # whatever the base says there, it is one of the two
    return tuple(
        one
        for rule in turned
        for one in ((Rule(watched + rule.conditions, _NOTIFY), rule) if rule.action == syscalls.ALLOW else (rule,))
    )


SMALLEST: Final = "compute"
"""The shipped profile that is within all others."""


def learnable() -> frozenset[str]:
    """Every call that some manifest could allow: all but what walls.toml refuses always."""
    walls = syscalls.walls()
    return syscalls.names() - walls.never - walls.absent


@cache
def _learned() -> Mapping[str, tuple[Condition, ...]]:
    """What a learning run's filter hands over: calls that name a path or an address, and whatever the smallest profile
    does not allow. execve is among them: when the payload's first is made, its notifier is there."""
    explained = syscalls.explained()
    watched = dict.fromkeys(learnable() - SHIPPED[SMALLEST].calls - syscalls.walls().needed, ())
    watched |= dict.fromkeys(explained.watched.keys() | explained.learned, ())
    return watched


def expand(names: Iterable[str]) -> Iterator[str]:
    """Calls and `@group`s as calls. Raises Refused `manifest_invalid` for a name that is neither."""
    groups = syscalls.groups()
    for name in names:
        if name.startswith("@"):
            if name[1:] not in groups:
                raise _unknown("group", name, [f"@{group}" for group in groups])
            yield from groups[name[1:]]
        elif name not in syscalls.names():
            raise _unknown("system call", name, syscalls.names())
        else:
            yield name


def _unknown(kind: str, name: str, known: Iterable[str]) -> Refused:
    choices = list(known)
    near = difflib.get_close_matches(name, choices, n=1)
    if near:
        remedy = f"did you mean {near[0]}?"
    elif kind == "system call":
        remedy = "use a name of syscalls(2), without sys_"
    else:
        remedy = f"use one of {', '.join(sorted(choices))}"
    return Refused("manifest_invalid", f"syscalls: {name!r} is not a {kind}", remedy)
