"""Open standard input again, to write: the caller passed a file to be read.

Wall: ids: the file's owner is not the payload's
Meets: EACCES
Scene: file_for_input
Control: fence without ids
Reference: proc_pid_fd(5)
"""

import os

from tests.escape.inside import got

os.close(os.open("/proc/self/fd/0", os.O_WRONLY))
got("the file, to write")
