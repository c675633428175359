"""Drive PID 1 onto one processor, or into the idle class.

Wall: ids; user namespace
Meets: EPERM
Control: fence without ids, capabilities
Reference: sched_setaffinity(2), sched_setscheduler(2)
"""

import os

from tests.escape.inside import tries

tries(
    {
        "its processors": lambda: os.sched_setaffinity(1, os.sched_getaffinity(0)),
        "its class": lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)),
    }
)
