"""Write into a pipe with a name in a bound directory that is not the caller's.

Wall: idmapped mounts: whose owner is not mapped cannot be written to
Meets: EACCES EPERM
Scene: service_in_a_bind
Control: fence
Reference: fifo(7)
"""

import os
import sys

from tests.escape.inside import got

fd = os.open(sys.argv[2], os.O_RDWR | os.O_NONBLOCK)
os.close(fd)
got("the pipe")
