"""Lock memory, so that the host cannot swap it out.

Wall: RLIMIT_MEMLOCK
Meets: ENOMEM EAGAIN EPERM
Control: fence without ids, capabilities
Reference: mlock(2)
"""

import ctypes
import mmap

from tests.escape.inside import check, got, libc

memory = mmap.mmap(-1, 64 << 20)
check(libc.mlock(ctypes.byref(ctypes.c_char.from_buffer(memory)), ctypes.c_size_t(64 << 20)))
got("64 MiB")
