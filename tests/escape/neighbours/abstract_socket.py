"""Reach what another sandbox serves under an abstract name.

Wall: network namespace
Meets: ECONNREFUSED
Scene: neighbour
Control: fence without network
Reference: unix(7)
"""

import json
import socket
import sys

from tests.escape.inside import got

socket.socket(socket.AF_UNIX).connect("\0" + json.loads(sys.argv[1])["name"])
got("its server")
