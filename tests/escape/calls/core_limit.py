"""Let a crash start the host's handler of core dumps, which is root's, on what the payload prepared.

Wall: filter: RLIMIT_CORE stays at 1
Meets: EINVAL EPERM
Control: no filter
Reference: CVE-2025-4598, core(5)
"""

import ctypes
import errno
import resource
from typing import Any

from tests.escape.inside import system, tries

CORE = 4


def lower(name: str, *arguments: Any) -> None:
    """The filter may say yes; what counts is the limit."""
    system(name, *arguments)
    if resource.getrlimit(resource.RLIMIT_CORE) != (0, 0):
        raise OSError(errno.EINVAL, "answered, and not done")


tries(
    {
        "setrlimit": lambda: lower("setrlimit", CORE, (ctypes.c_uint64 * 2)(0, 0)),
        "prlimit": lambda: lower("prlimit64", 0, CORE, (ctypes.c_uint64 * 2)(0, 0), 0),
        "prlimit, with the old one": lambda: lower(
            "prlimit64", 0, CORE, (ctypes.c_uint64 * 2)(), (ctypes.c_uint64 * 2)()
        ),
    }
)
