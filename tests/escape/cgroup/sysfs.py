"""Write the kernel's settings below /sys: a helper that it starts, power, modules.

Wall: view: no /sys
Meets: ENOENT
Control: fence without ids, capabilities, view
Reference: /sys/kernel/uevent_helper
"""

import os

from tests.escape.inside import each, got, open_to_write, tries

NAMES = ("kernel/uevent_helper", "power/state", "kernel/mm/ksm/run", "kernel/rcu_expedited", "kernel/profiling")
if os.path.exists("/sys/kernel"):
    got("/sys, to read")
tries(each(lambda name: open_to_write(f"/sys/{name}"), *NAMES))
