"""Write into another process: process_vm_writev and /proc/PID/mem of a brother.

Wall: filter, for the call; the file is a process's own affair and stays inside
Meets: EPERM
Control: no filter
Reference: process_vm_writev(2)
"""

import ctypes
import os
import time

from tests.escape.inside import got, system

word = ctypes.create_string_buffer(b"before", 6)
there = (ctypes.c_uint64 * 2)(ctypes.addressof(word), 6)
child = os.fork()
if child == 0:
    time.sleep(600)
    os._exit(0)
system("process_vm_writev", child, there, 1, there, 1, 0)
got("another's memory")
