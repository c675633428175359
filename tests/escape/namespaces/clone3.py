"""Be born into namespaces by clone3, whose flags are in memory, where no filter sees them.

Wall: filter: clone3 is absent
Meets: ENOSYS
Control: fence
Reference: clone(2)
"""

import ctypes
import os

from tests.escape.inside import NEWUSER, SIGCHLD, got, system

arguments = (ctypes.c_uint64 * 11)()
arguments[0], arguments[4] = NEWUSER, SIGCHLD
if system("clone3", arguments, 88) == 0:
    os._exit(0)
got("a child in a user namespace")
