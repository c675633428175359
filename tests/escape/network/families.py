"""Create sockets of rare families and protocols: each loads a module of the kernel's that few have looked at.

Wall: filter
Meets: EAFNOSUPPORT EPROTONOSUPPORT ESOCKTNOSUPPORT
Control: no filter
Needs: rare protocols
Reference: CVE-2017-6074 (DCCP), CVE-2016-8655, CVE-2022-0435 (TIPC), CVE-2021-43267
"""

import socket
from functools import partial

from tests.escape.inside import tries

UDPLITE, MPTCP, SCTP, DCCP = 136, 262, 132, 6
RARE = {"key": 15, "rds": 21, "tipc": 30, "can": 29, "kcm": 41, "qipcrtr": 42, "smc": 43, "xdp": 44, "bluetooth": 31}
INET = {"udplite": (2, UDPLITE), "mptcp": (1, MPTCP), "sctp": (1, SCTP), "dccp": (DCCP, 33)}
OLD = {name: partial(socket.socket, family, socket.SOCK_SEQPACKET) for name, family in RARE.items()}
NEW = {f"{name} datagram": partial(socket.socket, family, socket.SOCK_DGRAM) for name, family in RARE.items()}
tries({**OLD, **NEW, **{name: partial(socket.socket, 2, kind, number) for name, (kind, number) in INET.items()}})
