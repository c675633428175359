"""Fork without end.

Wall: limit pids
Meets: EAGAIN
Ends: pids
Manifest: {"limits": {"pids": 16}}
Control: manifest {"limits": {"pids": 128}}
Reference: fork bombs; RLIMIT_NPROC in getrlimit(2), cgroup pids
"""

import os
import signal

from tests.escape.inside import got

children = []
for _ in range(40):
    child = os.fork()
    if child == 0:
        signal.pause()
    children.append(child)
got(f"{len(children)} children")
