"""Leave a pipe with a name where a file is to be brought back: whoever opens it waits for ever.

Wall: only regular files are collected, and none is waited for
Meets: outside-decides
Scene: collects_a_pipe
Control: fence
Reference: fifo(7)
"""

import os
import sys

from tests.escape.inside import contained

os.mkfifo(sys.argv[1])
contained("outside-decides")  # the scene sees whether the reply came
