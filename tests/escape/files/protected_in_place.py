"""Change what is protected in a writable directory, by moving it or what it lies in, or putting another over it.

Wall: a protected path, and each directory above it, is a mount point
Meets: EBUSY EROFS EACCES EXDEV ENOTEMPTY
Scene: protected_directory
Control: scene
Reference: rename(2), EBUSY
"""

import os
import sys

from tests.escape.inside import check, libc, tries

ABOVE = sys.argv[1]
KEPT = f"{ABOVE}/kept"
OTHER = f"{os.path.dirname(ABOVE)}/other"
os.makedirs(f"{OTHER}/kept")
EXCHANGE, AT_FDCWD = 2, -100


def exchange(one: str, two: str) -> None:
    check(libc.renameat2(AT_FDCWD, one.encode(), AT_FDCWD, two.encode(), EXCHANGE))


tries(
    {
        "write": lambda: os.open(f"{KEPT}/hook", os.O_WRONLY),
        "create": lambda: os.open(f"{KEPT}/new", os.O_CREAT | os.O_WRONLY),
        "move": lambda: os.rename(KEPT, f"{OTHER}/moved"),
        "move what is above": lambda: os.rename(ABOVE, f"{OTHER}/moved"),
        "exchange": lambda: exchange(KEPT, f"{OTHER}/kept"),
        "exchange above": lambda: exchange(ABOVE, OTHER),
        "over it": lambda: os.rename(f"{OTHER}/kept", KEPT),
        "remove": lambda: os.rmdir(KEPT),
        "unlink within": lambda: os.unlink(f"{KEPT}/hook"),
    }
)
