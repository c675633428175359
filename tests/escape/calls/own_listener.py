"""Answer for oneself: a filter whose refusals go to a listener of one's own, which says "go on".

With notifications of its own the daemon's filter is of the same rank, and of equals the newest decides.

Wall: filter: refusal ranks above notification, and one listener is all there may be
Meets: EPERM EBUSY ENOSYS
Control: no filter
Reference: seccomp_unotify(2), SECCOMP_USER_NOTIF_FLAG_CONTINUE
"""

import ctypes
import fcntl
import os
import struct
import threading

from tests.escape.inside import got, libc, outcome, system

SET_FILTER, NEW_LISTENER, NOTIFY, ALLOW = 1, 8, 0x7FC00000, 0x7FFF0000
RECEIVE, SEND = 0xC0502100, 0xC0182101
NUMBER = 248 if os.uname().machine == "x86_64" else 217  # add_key
words = [(0x20, 0, 0, 0), (0x15, 0, 1, NUMBER), (6, 0, 0, NOTIFY), (6, 0, 0, ALLOW)]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *word) for word in words), 32)


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


def listen(flags: int) -> int:
    program = Program(4, ctypes.cast(code, ctypes.c_void_p))
    libc.prctl(38, 1, 0, 0, 0)
    return system("seccomp", SET_FILTER, flags, ctypes.byref(program))


def go_on(listener: int) -> None:
    while True:
        request = bytearray(80)
        fcntl.ioctl(listener, RECEIVE, request)
        fcntl.ioctl(listener, SEND, struct.pack("=QqiI", struct.unpack_from("=Q", request)[0], 0, 0, 1))


if outcome(lambda: threading.Thread(target=go_on, args=(listen(NEW_LISTENER),), daemon=True).start()) != "ok":
    listen(0)  # of the same rank, with nobody to ask
system("add_key", b"user", b"immured", b"x", 1, -3)
got("a call that it allowed itself")
