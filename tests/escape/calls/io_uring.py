"""Have the kernel open, write and connect by a ring, past every filter of system calls.

Wall: filter
Meets: EPERM
Control: no filter
Needs: io_uring
Reference: CVE-2022-29582, CVE-2023-2598; io_uring(7)
"""

import ctypes

from tests.escape.inside import got, system

system("io_uring_setup", 4, (ctypes.c_char * 120)())
got("a ring")
