"""Read and forge packets: packet sockets, raw sockets, and the old name of the former.

Wall: filter; capabilities; network namespace
Meets: EPERM EPROTONOSUPPORT
Control: fence without ids, capabilities
Reference: CVE-2017-7308, CVE-2020-14386; packet(7), raw(7)
"""

import socket

from tests.escape.inside import tries

SOCK_PACKET = 10
tries(
    {
        "AF_PACKET": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x300),
        "SOCK_PACKET": lambda: socket.socket(socket.AF_INET, SOCK_PACKET, 0x300),
        "raw": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        "raw 6": lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6),
    }
)
