"""Read the kernel's log, which is the whole host's: by /proc/kmsg, /dev/kmsg and syslog(2).

Wall: filter; ids; no such device
Meets: EACCES EPERM ENOENT
Control: fence without ids, capabilities
Reference: syslog(2)
"""

import os

from tests.escape.inside import system, tries

SIZE_BUFFER = 10
tries(
    {
        "/proc/kmsg": lambda: os.open("/proc/kmsg", os.O_RDONLY | os.O_NONBLOCK),
        "/dev/kmsg": lambda: os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK),
        "syslog": lambda: system("syslog", SIZE_BUFFER, 0, 0),
    }
)
