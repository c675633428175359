"""Set the timers of PID 1 off, so that its answers come late.

Wall: ids; capabilities
Meets: EPERM EACCES
Control: fence without ids, capabilities
Reference: proc_pid_timerslack_ns(5)
"""

from tests.escape.inside import got

with open("/proc/1/timerslack_ns", "w") as file:
    file.write("50000")
got("its timers")
