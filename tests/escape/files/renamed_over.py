"""Wait until the caller replaces a protected file, as editors do, and be there first: nothing lies on the new one.

A mount lies on a file, not on its name: the kernel takes it away with the file.

Wall: protect; a run whose protected place was replaced is ended
Meets: EROFS EACCES EPERM
Ends: violation
Scene: replaced_from_outside
Control: scene
Reference: rename(2); detach_mounts, since Linux 3.18
"""

import os
import sys
import threading
import time

from tests.escape.inside import got, holding, outcome


def watch() -> None:
    """For a second, as fast as it goes."""
    end = time.monotonic() + 1
    while time.monotonic() < end:
        if outcome(lambda: os.close(os.open(sys.argv[1], os.O_WRONLY))) == "ok":
            got("the file that took its place")


watcher = threading.Thread(target=watch)
watcher.start()
holding()
watcher.join()
os.close(os.open(sys.argv[1], os.O_WRONLY))
