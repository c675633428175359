"""Find the host's /proc below what is bound: mounted there for a chroot, a container, a build.

Wall: the kernel's own file systems below a bind are covered
Meets: none ENOENT
Scene: proc_below
Control: fence without propagation
Reference: mount(2), MS_REC
"""

import os
import sys

from tests.escape.inside import contained, got

if others := [name for name in os.listdir(sys.argv[1]) if name.isdigit()]:
    got(f"{len(others)} processes")
contained("none")
