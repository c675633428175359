"""Find another sandbox's processes, and end one.

Wall: pid namespace; ids of a run's own
Meets: none
Scene: neighbour
Control: fence without pids
Reference: pid_namespaces(7)
"""

import os
import signal
from functools import partial

from tests.escape.inside import contained, got, outcome, read

for name in os.listdir("/proc"):
    if not name.isdigit() or int(name) == os.getpid() or b"immured-neighbour" not in read(f"/proc/{name}/cmdline"):
        continue
    if outcome(partial(os.kill, int(name), signal.SIGCONT)) == "ok":
        got(f"process {name}")
contained("none")
