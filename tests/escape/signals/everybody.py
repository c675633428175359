"""End everything that may be ended: kill(-1), and the process groups about.

Wall: pid namespace; ids of a run's own
Meets: alive
Scene: victim
Control: fence without pids
Reference: kill(2), "all processes for which the calling process has permission"
"""

import os
import signal
import sys

from tests.escape.inside import contained, outcome, status

assert os.getuid() >= 1000
assert not int(status("CapEff"), 16), "without capabilities alone is this harmless outside a sandbox"
signal.signal(signal.SIGTERM, signal.SIG_IGN)
outcome(lambda: os.kill(-1, signal.SIGTERM))
outcome(lambda: os.killpg(os.getpgid(int(sys.argv[1])), signal.SIGTERM))
contained("alive")  # the scene knows better
