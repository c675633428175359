"""Open the terminal of whoever started us, by its name for everybody.

Wall: session
Meets: ENXIO
Scene: terminal
Control: fence without session
Reference: tty(4); CVE-2016-2568 (pkexec)
"""

import os

from tests.escape.inside import got

os.close(os.open("/dev/tty", os.O_RDWR))
got("the caller's terminal")
