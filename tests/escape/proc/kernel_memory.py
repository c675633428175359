"""Read the kernel's memory, or its physical pages.

Wall: masked and unmapped /proc files; ids
Meets: EACCES EPERM ENOENT ENODATA
Control: fence without ids, capabilities
Reference: proc_kcore(5), proc_kpagecount(5)
"""

import errno
import os

from tests.escape.inside import each, tries


def some(path: str) -> None:
    """At least a byte: what is masked is there, and empty."""
    fd = os.open(path, os.O_RDONLY)
    if not os.read(fd, 8):
        raise OSError(errno.ENODATA, path)


tries(each(lambda name: some(f"/proc/{name}"), "kcore", "kpagecount", "kpageflags", "vmallocinfo"))
