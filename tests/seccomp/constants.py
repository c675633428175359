"""What the kernel finds out about a filter when it is set: which calls it allows whatever their arguments.

Since Linux 5.11 (seccomp_cache_prepare_filter) such a call never runs the program: one test of a bit. This is that
search, as kernel/seccomp.c's seccomp_is_const_allow does it.
"""

from __future__ import annotations

import operator
from typing import Final

from immured._abi import lib
from tests.seccomp.kernel import INSTRUCTION

_LOAD, _AND, _ALWAYS, _RETURN = 0x20, 0x54, 0x05, 0x06
_TESTS: Final = {0x15: operator.eq, 0x25: operator.gt, 0x35: operator.ge, 0x45: operator.and_}


def is_constantly_allowed(program: bytes, architecture: int, number: int) -> bool:
    """Whether the kernel finds that this call is allowed, from its architecture and number alone."""
    code = list(INSTRUCTION.iter_unpack(program))
    at, held = 0, 0
    while True:
        operation, if_true, if_false, k = code[at]
        at += 1
        if operation == _LOAD and k in (0, 4):
            held = number if k == 0 else architecture
        elif operation == _AND:
            held &= k
        elif operation == _ALWAYS:
            at += k
        elif operation in _TESTS:
            at += if_true if _TESTS[operation](held, k) else if_false
        else:
            return bool(operation == _RETURN and k == lib.SECCOMP_RET_ALLOW)
