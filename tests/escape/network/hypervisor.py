"""Speak to the hypervisor, past every network namespace.

Wall: filter
Meets: EPERM
Control: no filter
Needs: AF_VSOCK
Reference: CVE-2021-26708; vsock(7)
"""

import socket

from tests.escape.inside import got

socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
got("AF_VSOCK")
