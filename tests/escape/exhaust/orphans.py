"""Hand processes to PID 1, so that nobody counts them: double forks, in sessions of their own.

Wall: limit pids, which is of the run, not of a tree
Meets: EAGAIN
Ends: pids
Manifest: {"limits": {"pids": 16}}
Control: manifest {"limits": {"pids": 128}}
Reference: daemon(7)
"""

import os
import signal

from tests.escape.inside import got

read, write = os.pipe()
for _ in range(40):
    child = os.fork()
    if child == 0:
        os.setsid()
        try:
            if os.fork() == 0:
                signal.pause()
        except OSError:
            os.write(write, b"x")
        os._exit(0)
    os.waitpid(child, 0)
os.set_blocking(read, False)
try:
    os.read(read, 1)
except BlockingIOError:
    got("40 orphans")
raise BlockingIOError(11, "no more processes")
