"""Shift the clocks that a later process sees, with a time namespace.

Wall: filter; capabilities
Meets: EPERM
Control: fence without ids, capabilities
Needs: time namespaces
Reference: time_namespaces(7)
"""

import os

from tests.escape.inside import NEWTIME, got, system

system("unshare", NEWTIME)
with open("/proc/self/timens_offsets", "w") as file:
    file.write("monotonic 86400 0")
if os.fork() == 0:
    os._exit(0)
got("a day")
