"""Paste on the console, take its messages, load a line discipline.

Wall: filter
Meets: EPERM
Control: no filter
Reference: CVE-2023-28339 (TIOCLINUX), CVE-2017-2636 (n_hdlc)
"""

import fcntl
import os
import struct
import termios

from tests.escape.inside import tries

TIOCLINUX, N_TTY = 0x541C, 0
_, terminal = os.openpty()
tries(
    {
        "TIOCLINUX": lambda: fcntl.ioctl(terminal, TIOCLINUX, b"\x03"),
        "TIOCCONS": lambda: fcntl.ioctl(terminal, termios.TIOCCONS, 0),
        "TIOCSETD": lambda: fcntl.ioctl(terminal, termios.TIOCSETD, struct.pack("i", N_TTY)),
    }
)
