"""List the keys that the kernel keeps for others.

Keyrings have no namespace of their own beside the user namespace's.

Wall: masked /proc files
Meets: nothing
Control: fence without ids, capabilities
Reference: proc_keys(5)
"""

from tests.escape.inside import contained, got, read

if lines := read("/proc/keys") + read("/proc/timer_list")[:100] + read("/proc/interrupts")[:100]:
    got(lines[:60])
contained("nothing")
