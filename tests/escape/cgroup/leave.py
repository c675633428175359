"""Leave the cgroup, and its limits, by writing one's pid to another's list.

Wall: view: no cgroup file system; ids
Meets: ENOENT EACCES
Control: fence without ids, capabilities, view
Reference: cgroups(7)
"""

from tests.escape.inside import each, open_to_write, read, tries

PLACES = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
mounts = [line.split()[1].decode() for line in read("/proc/self/mounts").splitlines() if b" cgroup2 " in line]
tries(each(lambda place: open_to_write(f"{place}/cgroup.procs"), *PLACES, *mounts))
