"""Live past the end of the run, as a daemon in a session of its own that ignores every signal.

Wall: the pid namespace and the cgroup end with the run
Meets: it-ended
Scene: mark_left_later
Control: fence without pids
Reference: daemon(7)
"""

import os
import signal
import sys
import time

from tests.escape.inside import contained

if os.fork() == 0:
    os.setsid()
    for number in range(1, 32):
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_IGN)
    if os.fork() == 0:
        null = os.open("/dev/null", os.O_RDWR)
        for number in range(3):
            os.dup2(null, number)
        time.sleep(0.4)
        open(f"{sys.argv[1]}/still-here", "w").close()
    os._exit(0)
os.wait()
contained("it-ended")  # the scene knows better
