"""Write to a file system that is mounted below what is bound to be read.

Wall: read-only mounts, those below a bind too
Meets: EROFS EACCES
Scene: mount_below
Control: fence without propagation
Reference: mount_setattr(2), AT_RECURSIVE; mount(8), "a bind remount is not recursive"
"""

import os
import sys

from tests.escape.inside import got

os.close(os.open(sys.argv[1], os.O_WRONLY))
got("the file")
