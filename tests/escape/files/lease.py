"""Hold up the caller's own programs: whoever opens a file outside waits for its lease, 45 seconds or a whole run.

A read-only bind is enough: the idmap makes the payload the owner of the caller's files, and owners may take leases.

Wall: filter
Meets: EINVAL
Scene: note_of_the_callers
Control: no filter
Reference: fcntl(2), "Leases"; /proc/sys/fs/lease-break-time
"""

import fcntl
import os
import sys

from tests.escape.inside import each, tries

READ_LEASE, SET_DELEGATION = 0, 1040
fd = os.open(sys.argv[1], os.O_RDONLY)
tries(each(lambda command: fcntl.fcntl(fd, command, READ_LEASE), fcntl.F_SETLEASE, SET_DELEGATION))
