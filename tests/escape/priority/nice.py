"""Lower one's niceness.

Wall: capabilities; RLIMIT_NICE is 0
Meets: EACCES EPERM
Control: fence without ids, capabilities
Reference: setpriority(2)
"""

import os

from tests.escape.inside import tries

tries(
    {
        "one's own": lambda: os.setpriority(os.PRIO_PROCESS, 0, -5),
        "init's": lambda: os.setpriority(os.PRIO_PROCESS, 1, 5),
    }
)
