"""The part of immured that is worth C: packing plans and compiling system-call filters."""

from collections.abc import Iterable, Sequence
from typing import Final

COMPARE_EQ: Final[int]
COMPARE_NE: Final[int]
COMPARE_LT: Final[int]
COMPARE_LE: Final[int]
COMPARE_GT: Final[int]
COMPARE_GE: Final[int]
COMPARE_IN: Final[int]
COMPARE_WIDE: Final[int]

def pack_plan(steps: Iterable[tuple[int, tuple[int, ...], tuple[bytes, ...]]]) -> bytes:
    """Pack `(op, numbers, strings)` steps into the launcher's binary plan (native/launcher/protocol.h).

    Raises TypeError, ValueError (a bound of the protocol is passed) or OverflowError (a number does not fit).
    """

def seccomp_compile(
    architecture: int,
    rules: Iterable[tuple[int, int, Sequence[tuple[int, int, int, int]]]],
    *,
    fallback: int,
    unknown: int,
    foreign: int,
) -> bytes:
    """Compile `(number, action, ((argument, compare, value, mask), ...))` rules into `struct sock_filter[]`.

    Of one number's rules the first whose conditions all hold decides; none: `fallback`; a number without rules:
    `unknown`; another architecture's calls, and x32's: `foreign`. Raises ValueError or OverflowError.
    """

def seccomp_trace(
    program: bytes,
    architecture: int,
    number: int,
    arguments: Sequence[int] = (),
    *,
    instruction_pointer: int = 0,
) -> tuple[int, int]:
    """What `program` returns for one call, SECCOMP_RET_* with its data, and how many instructions that took.

    Raises ValueError where the kernel would not take the program, OverflowError where a number does not fit.
    """

def seccomp_evaluate(
    program: bytes,
    architecture: int,
    number: int,
    arguments: Sequence[int] = (),
    *,
    instruction_pointer: int = 0,
) -> int:
    """What `program` returns for one call, as `seccomp_trace` without the count."""
