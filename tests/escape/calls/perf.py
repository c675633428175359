"""Measure, and so watch, by performance events.

Wall: filter
Meets: EPERM
Control: no filter
Needs: performance events
Reference: CVE-2013-2094, perf_event_open(2)
"""

import struct

from tests.escape.inside import got, system

SOFTWARE, TASK_CLOCK, EXCLUDE_KERNEL = 1, 1, 1 << 5 | 1 << 6
attributes = struct.pack("=IIQQQQQ", SOFTWARE, 128, TASK_CLOCK, 0, 0, 0, EXCLUDE_KERNEL).ljust(128, b"\0")
system("perf_event_open", attributes, 0, -1, -1, 0)
got("an event")
