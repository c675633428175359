"""Which system calls one [syscalls] grants that another does not. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from immured.manifest.change import Found, Severity
from immured.manifest.schema import Syscalls

__all__ = ["Calls", "syscalls_grown"]

Calls = Callable[[Syscalls], Mapping[str, str] | None]
"""Which system calls are granted, and in which words only in part (empty: whole). None where it is not known."""

_SHARP: Final = frozenset(
    {"ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd", "inotify_add_watch", "modify_ldt"}
)
"""Calls that no shipped profile grants and that reach another process, or tell of the host."""
_SHARP_GROUPS: Final = frozenset({"@debug", "@watching", "@legacy"})
_MAX_NAMED: Final = 12


def syscalls_grown(less: Syscalls, more: Syscalls, calls: Calls | None) -> Iterator[Found]:
    """What `more` admits beyond `less`."""
    if less == more:
        return
    before, after = (None, None) if calls is None else (calls(less), calls(more))
    if before is None or after is None:
        yield from _by_name(less, more)
        return
    gained = {call for call, part in after.items() if call not in before or before[call] not in ("", part)}
    for sharp, severity in ((True, Severity.HIGH), (False, Severity.MEDIUM)):
        names = sorted(call for call in gained if (call in _SHARP) is sharp)
        if names:
            yield Found.of("syscalls", severity, f"makes the system calls {_listed(names)}")


def _by_name(less: Syscalls, more: Syscalls) -> Iterator[Found]:
    if less.profile != more.profile:
        yield Found(
            "syscalls.profile",
            Severity.MEDIUM,
            f"makes the system calls of {more.profile} instead of those of {less.profile}",
            f"makes the system calls of {less.profile} instead of those of {more.profile}",
        )
    for name in more.allow:
        if name not in less.allow and name not in more.deny:
            severity = Severity.HIGH if name in _SHARP | _SHARP_GROUPS else Severity.MEDIUM
            yield Found.of("syscalls.allow", severity, f"makes the system calls {name}")
    for name in less.deny:
        if name not in more.deny:
            severity = Severity.HIGH if name in _SHARP | _SHARP_GROUPS else Severity.MEDIUM
            yield Found("syscalls.deny", severity, f"refuses {name} no more", f"makes the system calls {name} no more")


def _listed(names: list[str]) -> str:
    rest = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f" and {rest} more" if rest > 0 else "")
