"""Make a directory, a node or a pipe with the bit: mkdir, mknod, mkfifo.

A directory with the setgid bit gives its group to all that is made in it.

Wall: filter
Meets: EPERM
Scene: directory_of_the_callers
Control: no filter
Reference: mkdir(2), mknod(2)
"""

import os
import stat
import sys

from tests.escape.inside import tries

os.chdir(sys.argv[1])
tries(
    {
        "mknod": lambda: os.mknod("one", stat.S_IFREG | 0o4755),
        "mkfifo": lambda: os.mkfifo("two", 0o4755),
        "mkdir": lambda: os.mkdir("three", 0o2755),
        "mkdirat": lambda: os.mkdir("four", 0o6755, dir_fd=os.open(".", os.O_RDONLY)),
    }
)
