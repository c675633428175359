"""Start threads without end, which a limit on processes may not count.

Wall: limit pids
Meets: EAGAIN refused
Ends: pids
Manifest: {"limits": {"pids": 16}}
Control: manifest {"limits": {"pids": 128}}
Reference: pthreads(7)
"""

import threading
import time

from tests.escape.inside import contained, got

try:
    for _ in range(40):
        threading.Thread(target=lambda: time.sleep(600), daemon=True).start()
except RuntimeError:
    contained("refused")
got("40 threads")
