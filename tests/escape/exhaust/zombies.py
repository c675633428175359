"""Leave the dead about: a zombie is still a process.

Wall: limit pids
Meets: EAGAIN
Ends: pids
Manifest: {"limits": {"pids": 16}}
Control: manifest {"limits": {"pids": 128}}
Reference: wait(2), NOTES
"""

import os

from tests.escape.inside import got

for _ in range(40):
    if os.fork() == 0:
        os._exit(0)
got("40 zombies")
