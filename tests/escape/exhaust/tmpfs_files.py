"""Fill /tmp with files of no size: each is memory of the kernel's.

Wall: limit disk: the inodes of private file systems
Meets: ENOSPC
Manifest: {"limits": {"disk": "1M"}}
Control: manifest {"limits": {"disk": "64M"}}
Reference: tmpfs(5), nr_inodes
"""

import os

from tests.escape.inside import got

for number in range(4000):
    os.mknod(f"/tmp/{number}")
got("4,000 files")
