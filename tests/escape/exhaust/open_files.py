"""Open files without end.

Wall: limit files
Meets: EMFILE
Manifest: {"limits": {"files": 64}}
Control: manifest {"limits": {"files": 1024}}
Reference: getrlimit(2), RLIMIT_NOFILE
"""

import os

from tests.escape.inside import got

held = [os.open("/dev/null", os.O_RDONLY) for _ in range(200)]
got(len(held))
