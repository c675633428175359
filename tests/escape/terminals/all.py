"""Use up the pseudo-terminals, which the kernel counts for all together.

Wall: view: devpts with a bound
Meets: ENOSPC
Control: fence
Reference: Documentation/filesystems/devpts.rst, max
"""

import os

from tests.escape.inside import got

held = [os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY) for _ in range(100)]
got(f"{len(held)} terminals")
