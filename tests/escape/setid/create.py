"""Make a file that is setuid from its first moment: open, creat, O_TMPFILE and a link, openat2.

Wall: filter
Meets: EPERM ENOSYS
Scene: directory_of_the_callers
Control: no filter
Reference: open(2), openat2(2)
"""

import ctypes
import os
import sys

from tests.escape.inside import system, tries

os.chdir(sys.argv[1])
AT_FDCWD, NEW = -100, os.O_CREAT | os.O_WRONLY
how = (ctypes.c_uint64 * 3)(NEW, 0o4755, 0)
tries(
    {
        "open": lambda: os.open("one", NEW, 0o4755),
        "upper half": lambda: system("openat", AT_FDCWD, b"two", NEW, 0xDEADBEEF << 32 | 0o4755),
        "creat": lambda: system("creat", b"three", 0o2755),
        "tmpfile": lambda: os.open(".", os.O_TMPFILE | os.O_RDWR, 0o4755),
        "openat2": lambda: system("openat2", AT_FDCWD, b"four", how, 24),
    }
)
