"""Have a library of ours loaded by a helper of the daemon's that runs with more rights: LD_PRELOAD in the environment.

Wall: nothing of the daemon's executes a program inside, or after it has taken the run's environment
Meets: itself-alone
Scene: preloaded_library
Control: fence without ids
Reference: ld.so(8), LD_PRELOAD
"""

import os

from tests.escape.inside import contained, got

# Each load left a file with the uid that it was loaded by.
uids = {name.rpartition("-")[2] for name in os.listdir("/tmp") if name.startswith("loaded-")}
assert uids, "the library was never loaded"
if "0" in uids:
    got("code as uid 0")
contained("itself-alone")
