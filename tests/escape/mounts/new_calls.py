"""Mount by descriptor, with the calls that a filter written for mount(2) does not know.

Wall: capabilities; filter
Meets: EPERM
Control: fence without ids, capabilities
Reference: CVE-2022-0185
"""

import ctypes

from tests.escape.inside import system, tries

AT_FDCWD, CLONE = -100, 1
attributes = (ctypes.c_uint64 * 4)(0, 1, 0, 0)
tries(
    {
        "fsopen": lambda: system("fsopen", b"tmpfs", 0),
        "open_tree": lambda: system("open_tree", AT_FDCWD, b"/usr", CLONE),
        "mount_setattr": lambda: system("mount_setattr", AT_FDCWD, b"/usr", 0, attributes, 32),
        "fspick": lambda: system("fspick", AT_FDCWD, b"/tmp", 0),
        "move_mount": lambda: system("move_mount", AT_FDCWD, b"/dev/shm", AT_FDCWD, b"/tmp", 0),
    }
)
