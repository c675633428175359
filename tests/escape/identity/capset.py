"""Take capabilities back: by capset, the ambient set, and exec as a uid that would have them.

Wall: capabilities: the bounding set is empty, securebits are locked
Meets: EPERM none
Control: fence without capabilities
Reference: capabilities(7)
"""

import ctypes

from tests.escape.inside import contained, got, libc, outcome, status, system

AMBIENT, RAISE, CAP_SYS_ADMIN = 47, 2, 21
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
libc.capget(header, current := (ctypes.c_uint32 * 6)())
wanted = (ctypes.c_uint32 * 6)(*[current[1] or ~0, current[1] or ~0, 0, current[4] or ~0, current[4] or ~0, 0])
outcome(lambda: system("capset", header, wanted))
libc.prctl(AMBIENT, RAISE, CAP_SYS_ADMIN, 0, 0)
if any(int(status(name), 16) for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")):
    got(status("CapEff"))
contained("none")
