"""Read and write before everybody: the real-time class of disk priorities.

Wall: capabilities
Meets: EPERM
Control: fence without ids, capabilities
Reference: ioprio_set(2)
"""

from tests.escape.inside import got, system

PROCESS, REAL_TIME = 1, 1 << 13
system("ioprio_set", PROCESS, 0, REAL_TIME)
got("the real-time class")
