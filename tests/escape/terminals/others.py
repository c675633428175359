"""Open a terminal of the host's by its number.

Wall: view: a devpts of its own
Meets: ENOENT
Scene: terminal
Control: fence without view
Reference: pts(4)
"""

import os
import sys

from tests.escape.inside import got

os.close(os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY))
got("a terminal of the host's")
