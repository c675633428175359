"""Make POSIX message queues until the user may have no more.

Wall: ids of a run's own; RLIMIT_MSGQUEUE
Meets: bounded
Scene: shared_message_queues
Control: fence
Reference: getrlimit(2), RLIMIT_MSGQUEUE: counted by user
"""

import os

from tests.escape.inside import contained, got, holding, libc

number = 0
while libc.mq_open(b"/immured-%d" % number, os.O_CREAT | os.O_RDWR, 0o600, None) >= 0:
    number += 1
if holding() == "none left":
    got("everybody's")
contained("bounded")
