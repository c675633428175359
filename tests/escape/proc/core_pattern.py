"""Have the kernel start a program of ours, as root and outside, at the next crash.

Wall: user namespace; /proc/sys is read-only
Meets: EACCES EROFS EPERM
Control: fence without ids, capabilities
Reference: core(5)
"""

from tests.escape.inside import got, open_to_write

open_to_write("/proc/sys/kernel/core_pattern")
got("core_pattern")
