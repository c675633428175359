"""Use more memory than the limit says.

Wall: limit memory
Meets: ENOMEM
Ends: oom
Manifest: {"limits": {"memory": "64M"}}
Control: manifest {"limits": {"memory": "512M"}}
Reference: cgroups(7), getrlimit(2)
"""

from tests.escape.inside import contained, got

try:
    memory = bytearray(128 << 20)
except MemoryError:
    contained("ENOMEM")
got(len(memory))
