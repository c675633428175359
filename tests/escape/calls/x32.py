"""Use the x32 numbers: the same architecture to the filter, another table to the kernel.

Wall: filter: x32 kills
Ends: SIGSYS
Control: no filter
Machine: x86_64
Reference: seccomp(2), "the x32 ABI"
"""

import ctypes

from tests.escape.inside import got, libc

GETPID, X32 = 39, 0x40000000
libc.syscall(ctypes.c_long(X32 | GETPID))
got("past the filter, whatever the kernel then says")
