"""Make a file as large as there are no disks, in the caller's directory: whoever copies it copies zeros for hours.

Wall: limit disk: the size of files in writable binds
Meets: EFBIG
Ends: SIGXFSZ
Scene: directory_of_the_callers
Control: manifest {"limits": {"disk": "none"}}
Reference: getrlimit(2), RLIMIT_FSIZE
"""

import os
import sys

from tests.escape.inside import got

fd = os.open(f"{sys.argv[1]}/sparse", os.O_CREAT | os.O_WRONLY, 0o644)
os.ftruncate(fd, 1 << 35)
got("32 GiB")
