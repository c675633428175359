"""Load code into the kernel, or a map.

Wall: filter; capabilities
Meets: EPERM
Control: fence without ids, capabilities
Needs: bpf
Reference: CVE-2021-3490, bpf(2)
"""

import struct

from tests.escape.inside import got, system

MAP_CREATE, ARRAY = 0, 2
system("bpf", MAP_CREATE, struct.pack("=4I", ARRAY, 4, 4, 1).ljust(120, b"\0"), 120)
got("a map")
