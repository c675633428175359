"""Open another sandbox's POSIX message queue.

Wall: ipc namespace
Meets: ENOENT
Scene: neighbour
Control: fence without ipc
Reference: mq_overview(7)
"""

import json
import os
import sys

from tests.escape.inside import check, got, libc

check(libc.mq_open(b"/" + json.loads(sys.argv[1])["name"].encode(), os.O_RDWR))
got("its queue")
