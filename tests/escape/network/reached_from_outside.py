"""Serve those outside: listen where the host's programs look for a server.

Wall: network namespace
Meets: refused
Scene: connects_to_the_inside
Control: fence without network
Reference: network_namespaces(7)
"""

import socket

from tests.escape.inside import contained, got, holding

server = socket.create_server(("127.0.0.1", 0))
if holding(server.getsockname()[1]) == "reached":
    got("a client from outside")
contained("refused")
