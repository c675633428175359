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


def found(name: str) -> bool:
    """Processes come and go while one looks."""
    try:
        return int(name) != os.getpid() and b"immured-neighbour" in read(f"/proc/{name}/cmdline")
    except OSError:
        return False


for name in filter(str.isdigit, os.listdir("/proc")):
    if found(name) and outcome(partial(os.kill, int(name), signal.SIGCONT)) == "ok":
        got(f"process {name}")
contained("none")
