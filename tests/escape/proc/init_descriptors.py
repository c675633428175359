"""Open the descriptors of PID 1 again: sockets to the daemon, directories of the host.

Wall: ids; PID 1 is not dumpable
Meets: EACCES EPERM
Control: fence without ids, capabilities
Reference: CVE-2016-9962
"""

import os

from tests.escape.inside import each, tries

tries(each(lambda place: os.listdir(f"/proc/1/{place}"), "fd", "fdinfo", "map_files"))
