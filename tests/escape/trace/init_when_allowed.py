"""Trace PID 1 under a manifest that lets a debugger run: then no filter stands before it.

Wall: ids; PID 1 is not dumpable; user namespace
Meets: EPERM EACCES ENOSYS
Manifest: {"syscalls": {"allow": ["@debug", "@watching", "@numa", "@legacy"]}}
Control: fence without ids, capabilities
Reference: ptrace(2), "Ptrace access mode checking"; CVE-2016-9962
"""

import ctypes
import os

from tests.escape.inside import system, tries

SEIZE, ATTACH = 0x4206, 16
byte = ctypes.create_string_buffer(1)
ours = (ctypes.c_uint64 * 2)(ctypes.addressof(byte), 1)
theirs = (ctypes.c_uint64 * 2)(0x400000, 1)
tries(
    {
        "seize": lambda: system("ptrace", SEIZE, 1, 0, 0),
        "attach": lambda: system("ptrace", ATTACH, 1, 0, 0),
        "read": lambda: system("process_vm_readv", 1, ours, 1, theirs, 1, 0),
        "write": lambda: system("process_vm_writev", 1, ours, 1, theirs, 1, 0),
        "a descriptor": lambda: system("pidfd_getfd", os.pidfd_open(1), 0, 0),
        "compare": lambda: system("kcmp", 1, os.getpid(), 2, 0, 0),
        "its pages": lambda: system("move_pages", 1, 0, 0, 0, 0, 0),
    }
)
