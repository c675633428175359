"""Make the host's disk anew, as a device node.

Wall: filter; capabilities; nodev
Meets: EPERM
Control: fence without ids, capabilities
Reference: mknod(2)
"""

import os
import stat

from tests.escape.inside import tries

tries(
    {
        "block": lambda: os.mknod("/tmp/disk", stat.S_IFBLK | 0o600, os.makedev(254, 0)),
        "character": lambda: os.mknod("/tmp/null", stat.S_IFCHR | 0o600, os.makedev(1, 3)),
    }
)
