"""Set the setuid bit on a file of the caller's: it is the caller's outside as well.

With rubbish above the mode's 32 bits too, and by the newer calls.

Wall: filter
Meets: EPERM
Scene: directory_of_the_callers
Control: no filter
Reference: chmod(2), open(2)
"""

import os
import sys

from tests.escape.inside import system, tries

os.chdir(sys.argv[1])
os.close(os.open("file", os.O_CREAT | os.O_RDWR, 0o755))
os.mkdir("directory")
fd = os.open("file", os.O_RDWR)
AT_FDCWD = -100
tries(
    {
        "chmod": lambda: os.chmod("file", 0o4755),
        "chmod group": lambda: os.chmod("file", 0o2755),
        "chmod directory": lambda: os.chmod("directory", 0o2777),
        "fchmod": lambda: os.fchmod(fd, 0o6755),
        "fchmodat": lambda: os.chmod("file", 0o4755, dir_fd=os.open(".", os.O_RDONLY)),
        "fchmodat2": lambda: system("fchmodat2", AT_FDCWD, b"file", 0o4755, 0),
        "upper half": lambda: system("fchmod", fd, 0xDEADBEEF << 32 | 0o4755),
    }
)
