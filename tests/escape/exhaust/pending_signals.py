"""Queue signals and set timers until the user may have no more: those of the user's other runs then fail.

Wall: ids of a run's own; RLIMIT_SIGPENDING
Meets: bounded
Scene: shared_pending_signals
Control: fence
Reference: getrlimit(2), RLIMIT_SIGPENDING: counted by user
"""

import ctypes
import resource

from tests.escape.inside import contained, got, holding, libc

resource.setrlimit(resource.RLIMIT_SIGPENDING, (512, 512))
while libc.timer_create(1, None, ctypes.byref(ctypes.c_void_p())) == 0:
    pass
if holding() == "none left":
    got("everybody's")
contained("bounded")
