"""Reach an abstract socket of the host's, and be handed a directory of it by descriptor.

Wall: network namespace
Meets: ECONNREFUSED
Scene: host_abstract
Control: fence without network
Reference: CVE-2020-15257 (containerd-shim's abstract socket)
"""

import os
import socket
import sys

from tests.escape.inside import got

peer = socket.socket(socket.AF_UNIX)
peer.connect("\0" + sys.argv[1])
received = socket.recv_fds(peer, 1, 1)
got(os.listdir(received[1][0]))
