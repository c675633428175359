"""Learn the host's mounts: by mountinfo, listmount and statmount.

Wall: mount namespace
Meets: its-own
Control: fence without ids, capabilities, view
Reference: statmount(2), listmount(2)
"""

from tests.escape.inside import contained, got, read

KINDS = {b"cgroup", b"cgroup2", b"sysfs", b"devtmpfs", b"debugfs", b"autofs", b"rootfs", b"hostfs"}
kinds = {line.rpartition(b" - ")[2].split()[0] for line in read("/proc/self/mountinfo").splitlines()}
if found := kinds & KINDS:
    got(sorted(found))
contained("its-own")
