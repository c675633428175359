"""Have the kernel start a program of ours outside, when a cgroup of the first version empties.

The control makes a hierarchy of its own, without controllers, which ends with it.

Wall: filter; capabilities; cgroup namespace
Meets: EPERM
Control: fence without ids, capabilities, cgroup
Needs: cgroup v1
Reference: CVE-2022-0492, Felix Wilhelm's release_agent (2019)
"""

import ctypes

from tests.escape.inside import check, got, libc, open_to_write

options = b"none,name=immured-escape"
check(libc.mount(b"x", b"/tmp", b"cgroup", ctypes.c_ulong(0), options), "mount")
open_to_write("/tmp/release_agent")
got("release_agent")
