"""Be told which of the host's programs others start: inotify and F_NOTIFY on /usr/bin.

Wall: filter
Meets: EPERM EINVAL
Control: no filter
Reference: inotify(7), fcntl(2) F_NOTIFY
"""

import os

from tests.escape.inside import check, libc, system, tries

tries(
    {
        "inotify": lambda: system("inotify_add_watch", check(libc.inotify_init()), b"/usr/bin", 0xFFF),
        "F_NOTIFY": lambda: system("fcntl", os.open("/usr/bin", os.O_RDONLY), 1026, 1),
    }
)
