"""Use memory that belongs to no process: System V segments.

Wall: ipc namespace with bounds of its own
Meets: EINVAL ENOSPC ENOMEM
Ends: oom
Control: fence without ipc
Reference: proc_sys_kernel(5), shmall
"""

from tests.escape.inside import check, got, libc

REMOVE, CREATE = 0, 0o1600
for _ in range(8):
    segment = check(libc.shmget(0, 16 << 20, CREATE))  # its pages are not used here
    place = libc.shmat(segment, None, 0)
    libc.shmctl(segment, REMOVE, None)
got("128 MiB of segments")
