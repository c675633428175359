"""Take more of the kernel's memory for a socket's buffers than the host allows.

Wall: capabilities; user namespace
Meets: EPERM
Control: fence without ids, capabilities
Reference: socket(7), SO_SNDBUFFORCE
"""

import socket

from tests.escape.inside import each, tries

SNDBUFFORCE, RCVBUFFORCE, MARK = 32, 33, 36
pair = socket.socketpair()


def force(option: int) -> None:
    pair[0].setsockopt(socket.SOL_SOCKET, option, 1 << 28)


tries(each(force, SNDBUFFORCE, RCVBUFFORCE, MARK))
