"""Use the kernel's cryptography by sockets, where it has been wrong before.

Wall: filter
Meets: EPERM
Control: no filter
Needs: AF_ALG
Reference: CVE-2019-8912; socket(2) AF_ALG
"""

import socket

from tests.escape.inside import got

socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)
got("AF_ALG")
