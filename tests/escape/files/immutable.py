"""Make a file in the caller's directory unchangeable, so that its owner cannot remove it.

Wall: capabilities; user namespace
Meets: EPERM
Scene: directory_of_the_callers
Control: fence without ids, capabilities
Needs: a file system with flags
Reference: FS_IOC_SETFLAGS(2const)
"""

import fcntl
import os
import struct
import sys

from tests.escape.inside import got

GET, SET, IMMUTABLE = 0x80086601, 0x40086602, 0x10
fd = os.open(f"{sys.argv[1]}/file", os.O_CREAT | os.O_RDWR, 0o644)
flags = struct.unpack("l", fcntl.ioctl(fd, GET, b"\0" * 8))[0]
fcntl.ioctl(fd, SET, struct.pack("l", flags | IMMUTABLE))
fcntl.ioctl(fd, SET, struct.pack("l", flags & ~IMMUTABLE))
got("an immutable file")
