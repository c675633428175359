"""Counts, in its own memory, for as long as it lives."""

import itertools
import time

for number in itertools.count(1):
    print(number, flush=True)
    time.sleep(0.02)
