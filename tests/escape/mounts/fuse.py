"""Serve a file system of one's own, whose answers the kernel believes and whose silence hangs others.

Wall: no such device; capabilities; filter
Meets: ENOENT EPERM
Control: fence without ids, capabilities, view
Needs: FUSE
Reference: fuse(4)
"""

import os

from tests.escape.inside import got

os.close(os.open("/dev/fuse", os.O_RDWR))
got("/dev/fuse")
