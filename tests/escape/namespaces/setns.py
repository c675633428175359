"""Join namespaces: PID 1's by path and by pidfd, one's own anew.

Wall: filter; ids; capabilities
Meets: EPERM EACCES
Control: fence without ids, capabilities
Reference: setns(2)
"""

import os

from tests.escape.inside import NEWNS, NEWUTS, system, tries


def join(path: str) -> None:
    system("setns", os.open(path, os.O_RDONLY), 0)


tries(
    {
        "init's mounts": lambda: join("/proc/1/ns/mnt"),
        "init's users": lambda: join("/proc/1/ns/user"),
        "its own": lambda: join("/proc/self/ns/uts"),
        "by pidfd": lambda: system("setns", os.pidfd_open(1), NEWNS | NEWUTS),
    }
)
