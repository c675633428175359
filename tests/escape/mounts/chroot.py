"""The oldest way: chroot below a directory that one stands in, and walk up.

Wall: pivot_root, not chroot; capabilities; filter
Meets: EPERM
Control: fence without ids, capabilities
Reference: chroot(2), "This call does not change the current working directory"
"""

import os

from tests.escape.inside import contained, got

os.mkdir("/tmp/below")
before = os.stat("/").st_ino
os.chroot("/tmp/below")
held = os.open(".", os.O_RDONLY)
os.fchdir(held)
for _ in range(20):
    os.chdir("..")
if os.stat(".").st_ino == before:
    got("what lies above the root")
contained("nothing")
