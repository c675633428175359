"""Reach a server on the host's loopback: a database, a debugger, a metadata proxy.

Wall: network namespace
Meets: ECONNREFUSED
Scene: host_listener
Control: fence without network
Reference: network_namespaces(7)
"""

import socket
import sys

from tests.escape.inside import each, tries

PORT = int(sys.argv[1])
tries(each(lambda host: socket.create_connection((host, PORT), 2), "127.0.0.1", "127.0.0.2", "0.0.0.0"))
