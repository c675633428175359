"""Use memory that belongs to no process: full pipes, made as large as may be.

Wall: ids of a run's own: fs.pipe-user-pages-soft is counted by user; limit memory where the kernel's counts
Meets: bounded EPERM EMFILE
Ends: oom
Control: fence without ids, capabilities
Reference: CVE-2016-2847; pipe(7)
"""

import fcntl
import os

from tests.escape.inside import contained, got

SET_SIZE, SIZE = 1031, 1 << 20
total = 0
for _ in range(100):
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        fcntl.fcntl(write, SET_SIZE, SIZE)
    except PermissionError:
        break
    total += os.write(write, b"x" * SIZE)
if total > 90 << 20:
    got(f"{total >> 20} MiB")
contained("bounded")
