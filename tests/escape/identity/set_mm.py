"""Be named as another program: what /proc/PID/exe says, and so who asks for a path of ours.

Wall: capabilities
Meets: EPERM
Control: fence without ids, capabilities
Needs: checkpoint and restore
Reference: PR_SET_MM(2const), PR_SET_MM_MAP
"""

import ctypes
import errno
import os

from tests.escape.inside import got, read, system

SET_MM, MAP = 35, 14
fields = [int(word) for word in read("/proc/self/stat").rpartition(b")")[2].split()[1:]]
# proc_pid_stat(5) counts from 1, and the first three are not here.
field = dict(enumerate(fields, start=4))
start_brk = field[47]
addresses = [
    field[26],
    field[27],
    field[45],
    field[46],
    start_brk,
    start_brk,
    field[28],
    *(field[n] for n in range(48, 52)),
]
other = os.open("/usr/bin/true", os.O_RDONLY)
size = 104
where = (ctypes.c_uint64 * 13)(*addresses, 0, other << 32)
try:
    system("prctl", SET_MM, MAP, where, size, 0)
except OSError as error:
    if error.errno != errno.EBUSY:  # the right was there, and the old program is still mapped
        raise
got("another's program")
