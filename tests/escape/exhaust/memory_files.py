"""Use memory that belongs to no process: files in memory.

Wall: filter, where nothing counts them; else limit memory
Meets: EPERM ENOSPC
Ends: oom
Manifest: {"limits": {"memory": "64M"}}
Control: no filter
Reference: memfd_create(2)
"""

import os

from tests.escape.inside import got, system

fd = system("memfd_create", b"x", 0)
for _ in range(128):
    os.write(fd, b"x" * (1 << 20))
got("128 MiB")
