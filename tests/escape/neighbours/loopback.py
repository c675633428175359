"""Reach what another sandbox serves on its loopback.

Wall: network namespace
Meets: ECONNREFUSED
Scene: neighbour
Control: fence without network
Reference: network_namespaces(7)
"""

import json
import socket
import sys

from tests.escape.inside import got

with socket.create_connection(("127.0.0.1", json.loads(sys.argv[1])["port"]), 2):
    got("its server")
