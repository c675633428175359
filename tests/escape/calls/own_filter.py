"""Lay a filter over the filter that allows everything, for all threads, and try again.

Wall: filter: of several the strictest holds
Meets: EPERM
Control: no filter
Reference: seccomp(2)
"""

import ctypes
import struct

from tests.escape.inside import got, system

SET_FILTER, TSYNC, ALLOW = 1, 1, 0x7FFF0000
code = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, ALLOW), 8)


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


program = Program(1, ctypes.cast(code, ctypes.c_void_p))
system("seccomp", SET_FILTER, TSYNC, ctypes.byref(program))
system("add_key", b"user", b"immured", b"x", 1, -3)
got("a call that was refused before")
