"""Wait until the caller replaces a protected file, as editors do: nothing lies on the one that is renamed over it.

A mount lies on a file, not on its name: the kernel takes it away with the file.

Wall: protect: a run whose protected place was replaced is ended
Meets: EROFS EACCES EPERM
Ends: violation
Scene: replaced_from_outside
Control: scene
Reference: rename(2); detach_mounts, since Linux 3.18
"""

import os
import sys
import time

from tests.escape.inside import got, holding

holding()
time.sleep(4)
os.close(os.open(sys.argv[1], os.O_WRONLY))
got("the file that took its place")
