"""Run before everybody: SCHED_FIFO, SCHED_RR and deadlines.

Wall: capabilities; RLIMIT_RTPRIO is 0
Meets: EPERM
Control: fence without ids, capabilities
Reference: sched(7)
"""

import os
import struct

from tests.escape.inside import system, tries

deadline = struct.pack("=IIQiIQQQ", 48, 6, 0, 0, 0, 10**6, 10**7, 10**7)
tries(
    {
        "FIFO": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
        "RR": lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1)),
        "DEADLINE": lambda: system("sched_setattr", 0, deadline, 0),
    }
)
