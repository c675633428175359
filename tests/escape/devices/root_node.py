"""Use a device node that stands in the directory that is the run's root.

Wall: nodev on every mount but /dev
Meets: EACCES
Scene: device_in_a_root
Control: fence without nodev
Reference: mount(8), nodev
"""

import os
import sys

from tests.escape.inside import got

os.close(os.open(sys.argv[1], os.O_RDWR))
got("the device")
