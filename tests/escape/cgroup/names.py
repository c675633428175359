"""Learn from /proc where in the host's hierarchy one is: names of tenants, of the daemon.

Wall: cgroup namespace
Meets: its-own
Scene: named_cgroup
Control: fence without cgroup
Reference: cgroup_namespaces(7)
"""

from tests.escape.inside import contained, got, read

for line in read("/proc/self/cgroup").decode().splitlines():
    number, _, path = line.split(":", 2)
    if number == "0" and path != "/":
        got(path)
contained("its-own")
