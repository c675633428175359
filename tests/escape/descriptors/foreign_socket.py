"""Speak to a socket in a bound directory that is not the caller's: a service of the host's, open to all.

Wall: idmapped mounts: whose owner is not mapped cannot be written to
Meets: EACCES EPERM
Scene: service_in_a_bind
Control: fence
Reference: docker.sock; unix(7), "connecting requires write permission"
"""

import socket
import sys

from tests.escape.inside import got

socket.socket(socket.AF_UNIX).connect(sys.argv[1])
got("the service")
