"""Run a setuid program that stands nowhere: memfd_create, fchmod, exec by descriptor.

Wall: filter
Meets: EPERM
Control: no filter
Reference: memfd_create(2), fexecve(3)
"""

import os

from tests.escape.inside import got, system

fd = system("memfd_create", b"program", 0)
os.fchmod(fd, 0o4755)
got("a setuid file in memory")
