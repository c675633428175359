"""System calls that another filter allows, as what a manifest denies beside a profile, and allows beyond it. Pure."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Final

from immured import _core
from immured.adapters.draft import Draft
from immured.adapters.imported import invalid
from immured.isolation import syscalls
from immured.isolation.profiles import SHIPPED, permits
from immured.isolation.seccomp import AUDIT_ARCH, host_architecture

__all__ = ["Verdict", "only", "permitted_by", "without"]

_MAX_DENIED: Final = 512
_INSTRUCTION: Final = 8
_ARGUMENTS: Final = 16  # struct seccomp_data: nr, arch, instruction_pointer, then args
_NO_CALL: Final = 4000  # as long as it is no call's: the highest is below 600
_LOAD_WORD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS


def without(draft: Draft, source: str, denied: Set[str]) -> None:
    """Everything but these. What no call's name is, is said."""
    walls = syscalls.walls()
    known = {one for one in denied if one in syscalls.names()}
    for one in sorted(denied - known):
        draft.lost(f"{source} {one}", "no call of this name is known here")
    for one in sorted(known & set(walls.needed)):
        draft.looser(f"{source} {one}", "every program needs it to start and to end: it cannot be refused")
    refused = sorted(one for one in known - set(walls.needed) if one in SHIPPED[draft.profile].calls)
    draft.deny += refused
    if known:
        draft.maps(source, f"refused: {', '.join(sorted(known - set(walls.needed))) or 'nothing'}")


def only(draft: Draft, source: str, allowed: Set[str]) -> None:
    """These and nothing else, as far as the walls let them through."""
    walls, profile = syscalls.walls(), SHIPPED[draft.profile].calls
    barred = {*walls.never, *walls.absent}
    known = {one for one in allowed if one in syscalls.names()}
    draft.allow += sorted(known - profile - barred)
    draft.deny += sorted(profile - known - set(walls.needed))
    if len(draft.deny) > _MAX_DENIED:
        raise invalid(f"{source} leaves {len(draft.deny)} calls out; a manifest names at most {_MAX_DENIED}")
    for one in sorted(allowed - known):
        draft.stricter(f"{source} {one}", "no call of this name is known here")
    if known & barred:
        draft.stricter(source, f"refused all the same, to everybody: {', '.join(sorted(known & barred))}")
    extra = sorted(set(walls.needed) - known)
    if extra:
        draft.looser(source, f"allowed all the same, since every program starts and ends with them: {', '.join(extra)}")
    draft.maps(source, f"{len(known - barred)} calls are allowed, and nothing else")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a compiled filter says on this architecture where every argument is 0. `rest`: whether it permits calls that
    there are not, and so what it does not name; `looks`: whether it looks at arguments at all.
    """

    permitted: frozenset[str]
    rest: bool
    looks: bool


def permitted_by(program: bytes) -> Verdict:
    """A compiled filter (`struct sock_filter[]`, cBPF), asked call by call.

    Raises Refused `adapter_invalid` where the kernel would not take it.
    """
    architecture = host_architecture()
    found = set()
    try:
        for name, number in syscalls.numbers(architecture).items():
            if permits(_core.seccomp_evaluate(program, AUDIT_ARCH[architecture], number)):
                found.add(name)
        rest = permits(_core.seccomp_evaluate(program, AUDIT_ARCH[architecture], _NO_CALL))
    except (ValueError, OverflowError) as error:
        raise invalid(f"the filter is none that the kernel takes: {error}") from None
    looks = any(
        int.from_bytes(program[at : at + 2], "little") == _LOAD_WORD
        and int.from_bytes(program[at + 4 : at + 8], "little") >= _ARGUMENTS
        for at in range(0, len(program), _INSTRUCTION)
    )
    return Verdict(frozenset(found), rest, looks)
