"""Use a device node in a file system that is mounted below what is bound, and has its own flags.

Wall: nodev on every mount, those below a bind too
Meets: EACCES
Scene: mount_below
Control: fence without nodev, propagation
Reference: mount_setattr(2), AT_RECURSIVE
"""

import os
import sys

from tests.escape.inside import got

os.close(os.open(sys.argv[2], os.O_RDWR))
got("the device")
