"""Let a crash start the host's handler of core dumps, which is root's, on what the payload prepared.

Wall: filter: RLIMIT_CORE stays at 1
Meets: EINVAL EPERM
Control: no filter
Reference: CVE-2025-4598, core(5)
"""

import ctypes

from tests.escape.inside import system, tries

CORE = 4
tries(
    {
        "setrlimit": lambda: system("setrlimit", CORE, (ctypes.c_uint64 * 2)(0, 0)),
        "prlimit": lambda: system("prlimit64", 0, CORE, (ctypes.c_uint64 * 2)(0, 0), 0),
    }
)
