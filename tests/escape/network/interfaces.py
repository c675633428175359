"""Change interfaces: take lo down, add another.

Wall: capabilities; user namespace
Meets: EPERM
Control: fence without ids, capabilities
Reference: netdevice(7)
"""

import fcntl
import socket
import struct

from tests.escape.inside import tries

SET_FLAGS, SET_MTU = 0x8914, 0x8922
plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
tries(
    {
        "flags": lambda: fcntl.ioctl(plain, SET_FLAGS, struct.pack("16sh22x", b"lo", 0)),
        "mtu": lambda: fcntl.ioctl(plain, SET_MTU, struct.pack("16si20x", b"lo", 1500)),
    }
)
