"""Read the environment of PID 1: the daemon's, with whatever secrets it was started with.

Wall: ids; PID 1 is not dumpable
Meets: EACCES EPERM
Control: fence without ids, capabilities
Reference: proc_pid_environ(5)
"""

from tests.escape.inside import read, tries

tries({"environ": lambda: read("/proc/1/environ"), "auxv": lambda: read("/proc/1/auxv")})
