"""Have the caller pass a directory for a standard descriptor, and walk up from it.

Wall: only pipes, regular files and stream sockets are passed
Ends: bad_argument bad_descriptor fd_kind bad_frame bad_request
Scene: passed_directory
Control: fence
Reference: CVE-2024-21626, openat(2)
"""

import os
import sys

from tests.escape.inside import got

above = os.open("..", os.O_PATH, dir_fd=int(sys.argv[1]))
got(os.listdir(f"/proc/self/fd/{above}"))
