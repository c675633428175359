"""Whether two rules of one call can hold at once. Errs on the side of yes."""

from __future__ import annotations

from collections.abc import Sequence

from immured import _core
from immured.isolation.syscalls import Condition, parse_condition

__all__ = ["may_meet"]

_TOP = (1 << 64) - 1


def may_meet(one: Sequence[str], other: Sequence[str]) -> bool:
    """False where some condition of `one` and some of `other` exclude each other."""
    return not any(
        _exclude(first, second)
        for first in map(parse_condition, one)
        for second in map(parse_condition, other)
        if first[0] == second[0] and (first[1] ^ second[1]) & _core.COMPARE_WIDE == 0
    )


def _exclude(one: Condition, other: Condition) -> bool:
    kinds = one[1] & ~_core.COMPARE_WIDE, other[1] & ~_core.COMPARE_WIDE
    equal = {_core.COMPARE_EQ, _core.COMPARE_NE}
    if kinds == (_core.COMPARE_EQ, _core.COMPARE_EQ):
        return bool((one[2] ^ other[2]) & one[3] & other[3])
    if set(kinds) == equal and one[2:] == other[2:]:
        return True
    (low, high), (other_low, other_high) = _range(one), _range(other)
    return max(low, other_low) > min(high, other_high)


def _range(condition: Condition) -> tuple[int, int]:
    """The smallest and the largest value for which it may hold."""
    _, compare, value, mask = condition
    whole = _TOP if compare & _core.COMPARE_WIDE else _TOP >> 32
    ranges = {
        _core.COMPARE_LT: (0, value - 1),
        _core.COMPARE_LE: (0, value),
        _core.COMPARE_GT: (value + 1, whole),
        _core.COMPARE_GE: (value, whole),
        _core.COMPARE_IN: (value, mask),
        _core.COMPARE_EQ: (value, value) if mask == whole else (value, value | (whole & ~mask)),
    }
    return ranges.get(compare & ~_core.COMPARE_WIDE, (0, whole))
