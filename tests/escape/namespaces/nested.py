"""A user namespace in a user namespace, with mounts of its own: overlayfs and proc, as root of nothing.

Wall: filter; max_user_namespaces is 0
Meets: EPERM
Control: fence
Reference: CVE-2021-3493, CVE-2023-0386
"""

import os

from tests.escape.inside import NEWNS, NEWUSER, got, system

uid, gid = os.getuid(), os.getgid()
system("unshare", NEWUSER | NEWNS)
with open("/proc/self/setgroups", "w") as file:
    file.write("deny")
with open("/proc/self/uid_map", "w") as file:
    file.write(f"0 {uid} 1")
with open("/proc/self/gid_map", "w") as file:
    file.write(f"0 {gid} 1")
system("mount", b"x", b"/tmp", b"tmpfs", 0, 0)
system("unshare", NEWUSER | NEWNS)
got("a mount, as root of a namespace")
