"""Read the program of PID 1, which is the daemon's.

runc's PID 1 was the host's own runc binary: whoever could open /proc/1/exe could, later, write it.

Wall: ids; PID 1 is not dumpable
Meets: EACCES EPERM
Control: fence without ids, capabilities
Reference: CVE-2019-5736
"""

from tests.escape.inside import read, tries

tries({"its program": lambda: read("/proc/1/exe"), "its maps": lambda: read("/proc/1/maps")})
