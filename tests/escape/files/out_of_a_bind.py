"""Leave a bound directory: by a link to a path of the host's, by `..` from a descriptor.

Wall: mount namespace; view
Meets: ENOENT
Scene: secret_beside_a_bind
Control: fence without view
Reference: CVE-2018-15664, CVE-2021-30465; path_resolution(7)
"""

import os
import sys

from tests.escape.inside import tries

BOUND, SECRET = sys.argv[1:3]
NAME = os.path.basename(SECRET)
os.symlink(SECRET, f"{BOUND}/link")
os.symlink(f"../{NAME}", f"{BOUND}/short")
bound = os.open(BOUND, os.O_RDONLY)
tries(
    {
        "link": lambda: os.open(f"{BOUND}/link", os.O_RDONLY),
        "relative link": lambda: os.open(f"{BOUND}/short", os.O_RDONLY),
        "dots": lambda: os.open(f"../{NAME}", os.O_RDONLY, dir_fd=bound),
        "dots by /proc": lambda: os.open(f"/proc/self/fd/{bound}/../{NAME}", os.O_RDONLY),
        "path": lambda: os.open(SECRET, os.O_RDONLY),
    }
)
