"""Open a device of the host's: memory, disks, terminals, virtual machines, tunnels, loops.

Wall: view: its own /dev
Meets: ENOENT ENXIO
Control: fence without ids, capabilities, view
Reference: mem(4), loop(4), /dev/kvm
"""

import os

from tests.escape.inside import each, tries

NAMES = "mem kmsg port loop-control kvm net/tun userfaultfd vsock vhost-net ubd0 console".split()
tries(each(lambda name: os.open(f"/dev/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY), *NAMES))
