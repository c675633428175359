"""Type into a terminal: what is pushed is read by the shell outside when the program has ended.

Here a terminal of one's own stands for the caller's.

Wall: filter; session
Meets: EPERM
Control: no filter
Needs: dev.tty.legacy_tiocsti
Reference: CVE-2017-5226 (bubblewrap), TIOCSTI(2const)
"""

import fcntl
import os
import termios

from tests.escape.inside import tries

os.setsid() if os.getsid(0) != os.getpid() else None
_, terminal = os.openpty()
fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
UPPER = 0xDEADBEEF00000000


def raw(request: int) -> None:
    from tests.escape.inside import system

    system("ioctl", terminal, request, b"x")


tries(
    {
        "TIOCSTI": lambda: fcntl.ioctl(terminal, termios.TIOCSTI, b"x"),
        "upper half": lambda: raw(UPPER | termios.TIOCSTI),
    }
)
