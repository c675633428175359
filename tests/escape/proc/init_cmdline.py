"""Read how PID 1 was started: paths of the host, and options.

/proc/PID/cmdline is readable by all, whatever the process's ids.

Wall: PID 1's own words are zeroed
Meets: nothing
Control: fence
Reference: proc_pid_cmdline(5)
"""

from tests.escape.inside import contained, got, read

words = read("/proc/1/cmdline").strip(b"\0")
if words:
    got(words[:60])
contained("nothing")
