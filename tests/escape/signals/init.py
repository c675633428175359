"""Kill, stop or wake PID 1, by every call that sends a signal.

Wall: ids; user namespace
Meets: EPERM
Control: fence without ids
Reference: kill(2): the right is asked for even where PID 1 would not be hit
"""

import os
import signal

from tests.escape.inside import system, tries

info = (b"\0" * 8 + (-1 & 0xFFFFFFFF).to_bytes(4, "little")).ljust(128, b"\0")
tries(
    {
        "SIGCONT": lambda: os.kill(1, signal.SIGCONT),
        "SIGKILL": lambda: os.kill(1, signal.SIGKILL),
        "queued": lambda: system("rt_sigqueueinfo", 1, signal.SIGUSR1, info),
        "by pidfd": lambda: signal.pidfd_send_signal(os.pidfd_open(1), signal.SIGSTOP),
        "to its thread": lambda: system("tgkill", 1, 1, signal.SIGSTOP),
    }
)
