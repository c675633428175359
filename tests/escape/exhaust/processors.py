"""Use more processors than were given: by changing the affinity that bounds them.

Wall: limit cpus
Meets: EPERM bounded
Manifest: {"limits": {"cpus": "0.5"}}
Scene: several_times
Control: manifest {"limits": {"cpus": "none"}}
Needs: a second processor
Reference: sched_setaffinity(2)
"""

import os
import time

from tests.escape.inside import contained, got

os.sched_setaffinity(0, range(1024))
children = 2
start = time.monotonic()
for _ in range(children):
    if os.fork() == 0:
        while time.monotonic() - start < 0.8:
            pass
        os._exit(0)
for _ in range(children):
    os.wait()
used = os.times().children_user + os.times().children_system
if used / (time.monotonic() - start) > 0.75:
    got(f"{used:.2f} s")
contained("bounded")
