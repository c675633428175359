"""See processes of the host.

Wall: pid namespace
Meets: its-own
Control: fence without pids
Reference: pid_namespaces(7)
"""

import os

from tests.escape.inside import contained, got

others = [name for name in os.listdir("/proc") if name.isdigit() and int(name) not in (1, os.getpid())]
if others:
    got(f"{len(others)} processes")
contained("its-own")
