"""Set the host's clock, which no namespace has.

The control writes the time zone that is there already.

Wall: filter; capabilities
Meets: EPERM
Control: fence without ids, capabilities
Reference: settimeofday(2)
"""

import ctypes

from tests.escape.inside import check, got, libc, system

zone = (ctypes.c_int * 2)()
check(libc.gettimeofday(None, zone))
system("settimeofday", 0, zone)
got("the clock")
