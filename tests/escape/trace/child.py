"""Trace a child, and change its system calls after the filter has looked at them.

Wall: filter
Meets: EPERM
Control: no filter
Reference: ptrace(2), "before Linux 4.8 the seccomp check was not run again"
"""

import os
import time

from tests.escape.inside import got, system

SEIZE = 0x4206
child = os.fork()
if child == 0:
    time.sleep(600)
    os._exit(0)
system("ptrace", SEIZE, child, 0, 0)
got("a tracee")
