"""Take the covers off: unmount what lies over /proc and /dev.

Wall: capabilities; filter
Meets: EPERM
Control: fence without ids, capabilities
Reference: umount(2), CVE-2019-16884
"""

from tests.escape.inside import each, system, tries

DETACH = 2
PLACES = ("/proc/sys", "/proc/keys", "/proc/kcore", "/proc", "/dev/shm")
tries(each(lambda place: system("umount2", place.encode(), DETACH), *PLACES))
