"""Look for descriptors that whoever started us forgot: a directory of the host's is a way out.

Wall: session: all descriptors but 0, 1, 2 are closed
Meets: none
Scene: leaked_directory
Control: fence without descriptors
Reference: CVE-2024-21626
"""

import os

from tests.escape.inside import contained, got

for number in range(3, 1024):
    try:
        names = os.listdir(f"/proc/self/fd/{number}")
    except OSError:
        continue
    got(names)
contained("none")
