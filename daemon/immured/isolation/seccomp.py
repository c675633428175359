"""System-call filters for a run: a profile, with a manifest's own allowances and denials, compiled to BPF.

Default-deny: a call that the profile does not list is refused with EPERM, one that the tables do not know (newer than
they are) with ENOSYS, so that programs fall back; other ABIs' calls kill the process. What
`profiles/seccomp/walls.toml` holds stands above every profile and manifest.
"""

from __future__ import annotations

import difflib
import errno
import platform
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final, cast, get_args

from immured import _core
from immured._abi import lib
from immured.errors import ConfigurationError, Refused
from immured.isolation import syscalls
from immured.isolation.syscalls import Architecture, Rule

__all__ = ["AUDIT_ARCH", "compile_profile", "host_architecture", "profile_names"]

AUDIT_ARCH: Final[dict[Architecture, int]] = {"x86_64": lib.AUDIT_ARCH_X86_64, "aarch64": lib.AUDIT_ARCH_AARCH64}
_REFUSE: Final = lib.SECCOMP_RET_ERRNO | errno.EPERM
_ABSENT: Final = lib.SECCOMP_RET_ERRNO | errno.ENOSYS
_KILL: Final = lib.SECCOMP_RET_KILL_PROCESS
_NOTIFY: Final = lib.SECCOMP_RET_USER_NOTIF

profile_names = syscalls.profile_names


def host_architecture() -> Architecture:
    """This machine's architecture.

    Raises:
        ConfigurationError: `unsupported_architecture`: no filter can be made for it.
    """
    machine = platform.machine()
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
    explain: bool = False,
) -> bytes:
    """The filter of one run: `struct sock_filter[]`, made once per distinct request.

    Args:
        profile: one of `profile_names()`.
        allow: more calls, by name, or groups as `@name`. A guarded call (open, socket, clone, ...) stays guarded.
        deny: calls or groups to refuse as well, with EPERM; wins over `allow` and the profile.
        arch: the architecture; this machine's where it is None.
        explain: the form that notifies: where the base form answers EPERM (but for what explain.toml leaves
            unexplained), and where it allows a call that explain.toml watches. Everything else is the same.

    Raises:
        Refused: `manifest_invalid`: an unknown profile, call or group; an allowance of what no profile can give; a
            denial of what every program needs.
        ConfigurationError: `unsupported_architecture`.
    """
    return _compile(profile, tuple(sorted(set(allow))), tuple(sorted(set(deny))), arch or host_architecture(), explain)


@lru_cache(maxsize=256)
def _compile(
    name: str, allow: tuple[str, ...], deny: tuple[str, ...], architecture: Architecture, explain: bool
) -> bytes:
    walls = syscalls.walls()
    if name not in syscalls.profile_names():
        raise _unknown("profile", name, syscalls.profile_names())
    added = frozenset(_expand(allow))
    denied = frozenset(_expand(deny))
    for call in sorted(added & (walls.never | walls.absent)):
        raise Refused("manifest_invalid", f"syscalls.allow: no profile can allow {call}", f"take {call} out of allow")
    for call in sorted(denied & walls.needed):
        raise Refused("manifest_invalid", f"syscalls.deny: no program runs without {call}", f"take {call} out of deny")
    allowed = (syscalls.profile(name).calls | added) - denied
    form = _explained if explain else _base
    rules = [
        (number, rule.action, rule.conditions)
        for call, number in syscalls.numbers(architecture).items()
        for rule in form(call, call in allowed)
    ]
    return _core.seccomp_compile(AUDIT_ARCH[architecture], rules, fallback=_REFUSE, unknown=_ABSENT, foreign=_KILL)


def _base(call: str, allowed: bool) -> tuple[Rule, ...]:
    """The rules of one call; where none holds it is refused."""
    walls = syscalls.walls()
    if call in walls.absent:
        return (Rule((), _ABSENT),)
    if not allowed:
        return (Rule((), _REFUSE),)
    return walls.guards.get(call, (Rule((), syscalls.ALLOW),))


def _explained(call: str, allowed: bool) -> tuple[Rule, ...]:
    """The rules of one call where refusals notify, and allowances of what is watched."""
    explained = syscalls.explained()
    base = (*_base(call, allowed), Rule((), _REFUSE))
    if call in explained.unexplained:
        return base
    turned = tuple(Rule(rule.conditions, _NOTIFY if rule.action == _REFUSE else rule.action) for rule in base)
    if call not in explained.watched:
        return turned
    watched = explained.watched[call]
    if all(rule.action in (syscalls.ALLOW, _NOTIFY) for rule in turned):
        return (Rule(watched, _NOTIFY), *turned)  # whatever the base says there, it is one of the two
    return tuple(
        one
        for rule in turned
        for one in ((Rule(watched + rule.conditions, _NOTIFY), rule) if rule.action == syscalls.ALLOW else (rule,))
    )


def _expand(names: Iterable[str]) -> Iterator[str]:
    """Calls and `@group`s as calls."""
    groups = syscalls.groups()
    calls = syscalls.numbers("x86_64").keys() | syscalls.numbers("aarch64").keys()
    for name in names:
        if name.startswith("@"):
            if name[1:] not in groups:
                raise _unknown("group", name, [f"@{group}" for group in groups])
            yield from groups[name[1:]]
        elif name not in calls:
            raise _unknown("system call", name, calls)
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
