"""Enter the kernel as a 32-bit program does: int 0x80, with that table's numbers, from 64-bit code.

A filter that looks at the number alone takes i386's setgid for x86_64's getrlimit.

Wall: filter: other architectures kill
Meets: ENOSYS
Ends: SIGSYS
Control: no filter
Needs: 32-bit emulation
Machine: x86_64
Reference: seccomp(2), "Architecture-specific details"
"""

import ctypes
import mmap
import os

from tests.escape.inside import contained, got

# push rbx; mov eax, 20 (getpid); int 0x80; pop rbx; ret
CODE = bytes.fromhex("53 b8 14 00 00 00 cd 80 5b c3")
memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
memory.write(CODE)
enter = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
answer = enter()
if answer == os.getpid():
    got("getpid of i386")
contained("ENOSYS")  # this kernel has no such entry
