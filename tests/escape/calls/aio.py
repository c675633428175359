"""The older rings, whose contexts the kernel counts for the whole host: io_setup.

Wall: filter
Meets: EPERM
Control: no filter
Needs: asynchronous input and output
Reference: io_setup(2), fs.aio-max-nr
"""

import ctypes

from tests.escape.inside import got, system

system("io_setup", 1, ctypes.byref(ctypes.c_ulong()))
got("a context")
