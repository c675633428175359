"""Change the descriptor tables of the processor.

Wall: filter
Meets: EPERM
Control: no filter
Needs: modify_ldt
Machine: x86_64
Reference: CVE-2017-17053, modify_ldt(2)
"""

import ctypes

from tests.escape.inside import got, system

READ = 0
system("modify_ldt", READ, ctypes.create_string_buffer(64), 64)
got("the table")
