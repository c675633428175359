"""Change the root of the whole mount namespace.

Wall: capabilities; filter
Meets: EPERM
Control: fence without ids, capabilities
Reference: pivot_root(2)
"""

import os

from tests.escape.inside import got, system

os.chdir("/tmp")
if os.geteuid() == 0:  # a new root has to be a mount, and not the current one
    system("mount", b"/tmp", b"/tmp", 0, 4096, 0)
    os.chdir("/tmp")
os.makedirs("/tmp/old", exist_ok=True)
system("pivot_root", b".", b"old")
got("another root")
