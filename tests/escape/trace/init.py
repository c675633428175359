"""Trace PID 1, or look into its memory.

Wall: filter; ids; PID 1 is not dumpable
Meets: EPERM
Control: fence without ids, capabilities
Reference: ptrace(2), process_vm_readv(2)
"""

import ctypes
import os

from tests.escape.inside import system, tries

SEIZE = 0x4206
byte = ctypes.create_string_buffer(1)
ours = (ctypes.c_uint64 * 2)(ctypes.addressof(byte), 1)
theirs = (ctypes.c_uint64 * 2)(0x400000, 1)
tries(
    {
        "trace": lambda: system("ptrace", SEIZE, 1, 0, 0),
        "read": lambda: system("process_vm_readv", 1, ours, 1, theirs, 1, 0),
        "its descriptor": lambda: system("pidfd_getfd", os.pidfd_open(1), 0, 0),
    }
)
