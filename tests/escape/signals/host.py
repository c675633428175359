"""End a process of the host by its pid.

Wall: pid namespace; ids
Meets: ESRCH
Scene: victim
Control: fence without pids
Reference: kill(2)
"""

import os
import signal
import sys

from tests.escape.inside import got

os.kill(int(sys.argv[1]), signal.SIGTERM)
got("the process")
