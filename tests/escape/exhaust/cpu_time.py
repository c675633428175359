"""Spread work over children that each end in time: what is counted by process never sees the sum.

Wall: limit cpu_time: the whole tree's
Ends: cpu_time
Manifest: {"limits": {"cpu_time": "500ms"}}
Control: manifest {"limits": {"cpu_time": "none"}}
Reference: getrlimit(2), RLIMIT_CPU is per process
"""

import os
import time

from tests.escape.inside import got

for _ in range(12):
    if os.fork() == 0:
        while time.process_time() < 0.1:
            pass
        os._exit(0)
    os.wait()
got("1.2 seconds")
