"""Stay on, with every signal blocked and ignored.

Wall: limit wall
Ends: timeout
Manifest: {"limits": {"wall": "400ms"}}
Control: manifest {"limits": {"wall": "100s"}}
Reference: signal(7)
"""

import signal
import time

from tests.escape.inside import got

for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
time.sleep(4)
got("as long as it liked")
