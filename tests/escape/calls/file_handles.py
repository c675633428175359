"""Open files by handle, past every path: number 2 is the root of the host's disk.

Wall: filter; capabilities
Meets: EPERM
Control: fence without ids, capabilities
Reference: "shocker.c" (2014), open_by_handle_at(2)
"""

import ctypes
import os

from tests.escape.inside import got, system

AT_FDCWD = -100
open("/tmp/file", "w").close()
handle = (ctypes.c_uint32 * 34)(128)
system("name_to_handle_at", AT_FDCWD, b"/tmp/file", handle, ctypes.byref(ctypes.c_int()), 0)
system("open_by_handle_at", os.open("/tmp", os.O_RDONLY), handle, os.O_RDONLY)
got("a file without its path")
