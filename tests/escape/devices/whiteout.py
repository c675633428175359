"""Make the one device node that needs no right: an overlay's whiteout, which hides a file where it is merged.

Wall: filter; landlock
Meets: EPERM
Control: fence
Reference: mknod(2), since Linux 5.8
"""

import os
import stat

from tests.escape.inside import tries

tries(
    {
        "whiteout": lambda: os.mknod("/tmp/hidden", stat.S_IFCHR, os.makedev(0, 0)),
        "at": lambda: os.mknod("hidden", stat.S_IFCHR, os.makedev(0, 0), dir_fd=os.open("/tmp", os.O_RDONLY)),
    }
)
