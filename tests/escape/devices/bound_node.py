"""Use a device node that stands in a bound directory.

Wall: nodev on every mount but /dev
Meets: EACCES
Scene: device_in_a_bind
Control: fence without nodev
Reference: mount(8), nodev
"""

import os
import sys

from tests.escape.inside import got

os.close(os.open(sys.argv[1], os.O_RDWR))
got("the device")
