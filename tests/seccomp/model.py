"""What a filter's rules mean, said a second time and as plainly as possible; and the rules that tests draw."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from immured import _core
from immured._abi import lib

ALLOW = lib.SECCOMP_RET_ALLOW
KILL = lib.SECCOMP_RET_KILL_PROCESS
KILL_THREAD = lib.SECCOMP_RET_KILL_THREAD
LOG = lib.SECCOMP_RET_LOG
NOTIFY = lib.SECCOMP_RET_USER_NOTIF
TRAP = lib.SECCOMP_RET_TRAP
X86_64 = lib.AUDIT_ARCH_X86_64
AARCH64 = lib.AUDIT_ARCH_AARCH64
LOW = 0xFFFF_FFFF
ALL = 0xFFFF_FFFF_FFFF_FFFF

Condition = tuple[int, int, int, int]
Rule = tuple[int, int, tuple[Condition, ...]]


def errno_action(number: int) -> int:
    """SECCOMP_RET_ERRNO with its number."""
    return lib.SECCOMP_RET_ERRNO | number


def holds(condition: Condition, arguments: Sequence[int]) -> bool:
    """Whether one condition is true of a call's arguments."""
    index, compare, value, mask = condition
    wide = bool(compare & _core.COMPARE_WIDE)
    argument = arguments[index] if wide else arguments[index] & LOW
    outcomes = {
        _core.COMPARE_EQ: argument & mask == value,
        _core.COMPARE_NE: argument & mask != value,
        _core.COMPARE_LT: argument < value,
        _core.COMPARE_LE: argument <= value,
        _core.COMPARE_GT: argument > value,
        _core.COMPARE_GE: argument >= value,
        _core.COMPARE_IN: value <= argument <= mask,
    }
    return outcomes[compare & ~_core.COMPARE_WIDE]


def verdict(
    rules: Sequence[Rule],
    number: int,
    arguments: Sequence[int],
    *,
    fallback: int,
    unknown: int,
    foreign: int,
    x86: bool,
) -> int:
    """What the rules say to a call of their own architecture."""
    if x86 and number >= 0x4000_0000 and number != LOW:
        return foreign
    own = [rule for rule in rules if rule[0] == number]
    if not own:
        return unknown
    for _, action, conditions in own:
        if all(holds(condition, arguments) for condition in conditions):
            return action
    return fallback


def values(width: int) -> st.SearchStrategy[int]:
    """Numbers with a taste for the places where comparisons go wrong."""
    top = 2**width - 1
    edges = [0, 1, 2, 0o6000, 0x7FFF_FFFF, 0x8000_0000, LOW, 2**32, 2**32 + 1, 2**63, ALL - 1, ALL]
    return st.one_of(st.sampled_from([edge for edge in edges if edge <= top]), st.integers(0, 15), st.integers(0, top))


@st.composite
def conditions(draw: st.DrawFn, *, only_wide: bool = False) -> Condition:
    """A well-formed condition."""
    wide = only_wide or draw(st.booleans())
    width = 64 if wide else 32
    kind = draw(st.integers(_core.COMPARE_EQ, _core.COMPARE_IN))
    value, mask = draw(values(width)), draw(values(width))
    if kind in (_core.COMPARE_EQ, _core.COMPARE_NE):
        value &= mask
    elif kind == _core.COMPARE_IN:
        value, mask = min(value, mask), max(value, mask)
    else:
        mask = 0
    return draw(st.integers(0, 5)), kind | (_core.COMPARE_WIDE if wide else 0), value, mask


ACTIONS = st.sampled_from(
    [ALLOW, KILL, KILL_THREAD, LOG, NOTIFY, TRAP, errno_action(1), errno_action(13), errno_action(38)]
)
NUMBERS = st.one_of(st.integers(0, 12), st.integers(0, 500), st.sampled_from([0x3FFF_FFFF, 0x3FFF_FFFE]))


def rules(max_size: int = 40) -> st.SearchStrategy[list[Rule]]:
    """Rules in any order, some of the same number."""
    one = st.tuples(NUMBERS, ACTIONS, st.lists(conditions(), max_size=4).map(tuple))
    return st.lists(one, max_size=max_size)


@st.composite
def arguments_near(draw: st.DrawFn, rules_: Sequence[Rule]) -> tuple[int, ...]:
    """Six arguments, on or beside the values that the rules compare with."""
    known = sorted({value for _, _, listed in rules_ for _, _, *pair in listed for value in pair}) or [0]
    near = st.builds(
        lambda value, shift, high: ((value + shift) & ALL) ^ high,
        st.sampled_from(known),
        st.integers(-1, 1),
        st.sampled_from([0, 0, 1 << 32, 1 << 63]),
    )
    return draw(st.tuples(*[st.one_of(near, values(64))] * 6))
