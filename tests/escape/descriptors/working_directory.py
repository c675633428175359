"""Ask to be started in a directory that a forgotten descriptor leads to.

Wall: cwd is looked up inside, as the payload, with no descriptor open; `..` ends at the root
Meets: inside
Ends: cwd_missing bad_argument
Scene: working_directory_by_descriptor
Control: fence without descriptors
Reference: CVE-2024-21626 (WORKDIR /proc/self/fd/7)
"""

import os

from tests.escape.inside import contained, got

for _ in range(10):
    if os.path.exists("immured-marker"):
        got("a directory of the host's")
    os.chdir("..")
contained("inside")
