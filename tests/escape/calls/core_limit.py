"""Let a crash start the host's handler of core dumps, which is root's, on what the payload prepared.

At RLIMIT_CORE 1, and at no other value, the kernel does not start it. Who sets it may be told so, and has not.

Wall: filter: RLIMIT_CORE stays at 1
Meets: 1
Control: fence
Reference: CVE-2025-4598, core(5)
"""

import ctypes
import resource

from tests.escape.inside import contained, got, outcome, system

CORE = resource.RLIMIT_CORE
nothing = (ctypes.c_uint64 * 2)(0, 0)
before = (ctypes.c_uint64 * 2)()
outcome(lambda: system("setrlimit", CORE, nothing))
outcome(lambda: system("setrlimit", 0xDEADBEEF << 32 | CORE, nothing))
outcome(lambda: system("prlimit64", 0, CORE, nothing, 0))
outcome(lambda: system("prlimit64", 0, CORE, nothing, before))
now, most = resource.getrlimit(CORE)
if (now, most) != (1, 1):
    got(f"a limit of {now}, at most {most}")
contained("1")
