"""Turn a descriptor that can do nothing (O_PATH) into one that writes: by /proc/self/fd, by a link.

Wall: read-only mounts: the descriptor knows its mount
Meets: EROFS EACCES ENOENT EXDEV EPERM
Scene: note_of_the_callers
Control: scene
Reference: open(2) O_PATH; CVE-2019-5736
"""

import os
import sys

from tests.escape.inside import system, tries

AT_FDCWD, EMPTY_PATH, FOLLOW = -100, 0x1000, 0x400
fd = os.open(sys.argv[1], os.O_PATH)
tries(
    {
        "again": lambda: os.open(f"/proc/self/fd/{fd}", os.O_WRONLY),
        "appending": lambda: os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_APPEND),
        "linked": lambda: system("linkat", fd, b"", AT_FDCWD, b"/tmp/linked", EMPTY_PATH),
        "linked by name": lambda: system(
            "linkat", AT_FDCWD, b"/proc/self/fd/%d" % fd, AT_FDCWD, b"/tmp/linked", FOLLOW
        ),
    }
)
