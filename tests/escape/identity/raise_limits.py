"""Raise a hard limit, of one's own or of PID 1's.

Wall: capabilities; ids
Meets: EPERM
Control: fence without ids, capabilities
Reference: prlimit(2)
"""

import ctypes
import resource

from tests.escape.inside import system, tries


def change_of_init() -> None:
    """To what it is."""
    now = (ctypes.c_uint64 * 2)()
    system("prlimit64", 1, resource.RLIMIT_NPROC, 0, now)
    system("prlimit64", 1, resource.RLIMIT_NPROC, now, 0)


INFINITE = (ctypes.c_uint64 * 2)(2**64 - 1, 2**64 - 1)
resource.setrlimit(resource.RLIMIT_NPROC, (64, 64))
tries(
    {
        "processes": lambda: system("prlimit64", 0, resource.RLIMIT_NPROC, INFINITE, 0),
        "locked memory": lambda: system("prlimit64", 0, resource.RLIMIT_MEMLOCK, INFINITE, 0),
        "init's": change_of_init,
    }
)
