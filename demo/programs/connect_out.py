"""Tries to reach somebody: each argument is host:port, or @name for an abstract Unix socket."""

import errno
import socket
import sys

for address in sys.argv[1:]:
    host, _, port = address.rpartition(":")
    try:
        with socket.socket(socket.AF_INET if host else socket.AF_UNIX) as one:
            one.settimeout(3)
            one.connect((host, int(port)) if host else "\0" + address[1:])
    except OSError as refused:
        print(errno.errorcode.get(refused.errno or 0, type(refused).__name__))
    else:
        print("OK")
