"""Have the kernel send signals for one: F_SETOWN and SIGIO to a process of the host.

Wall: pid namespace
Meets: ESRCH
Scene: victim
Control: fence without pids
Reference: fcntl(2), F_SETOWN
"""

import fcntl
import os
import sys

from tests.escape.inside import got

read, write = os.pipe()
fcntl.fcntl(read, fcntl.F_SETOWN, int(sys.argv[1]))
if fcntl.fcntl(read, fcntl.F_GETOWN) != int(sys.argv[1]):
    raise ProcessLookupError(3, "no such process here")
got("signals to the process")
