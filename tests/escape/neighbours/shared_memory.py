"""Find another sandbox's System V shared memory by its key.

Wall: ipc namespace
Meets: ENOENT
Scene: neighbour
Control: fence without ipc
Reference: ipc_namespaces(7)
"""

import json
import sys

from tests.escape.inside import check, got, libc

check(libc.shmget(json.loads(sys.argv[1])["key"], 4096, 0))
got("its memory")
