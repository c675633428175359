"""Walk out through the root or the working directory of PID 1.

Wall: ids; PID 1 is not dumpable
Meets: EACCES EPERM
Control: fence without ids, capabilities
Reference: proc_pid_root(5)
"""

import os

from tests.escape.inside import each, tries

tries(each(lambda place: os.listdir(f"/proc/1/{place}"), "root", "cwd", "task/1/root"))
