"""Climb from a namespace to its parent or its owner, by ioctl.

Wall: user namespace: the parent is beyond what may be seen
Meets: EPERM EACCES
Control: fence without ids, capabilities
Reference: ioctl_ns(2)
"""

import fcntl
import os

from tests.escape.inside import tries

NS_GET_USERNS, NS_GET_PARENT, NS_GET_TGID = 0xB701, 0xB702, 0x8004B707


def ask(path: str, request: int) -> None:
    fcntl.ioctl(os.open(path, os.O_RDONLY), request)


tries(
    {
        "parent of the users": lambda: ask("/proc/self/ns/user", NS_GET_PARENT),
        "parent of the processes": lambda: ask("/proc/self/ns/pid", NS_GET_PARENT),
        "owner of init's": lambda: ask("/proc/1/ns/mnt", NS_GET_USERNS),
    }
)
