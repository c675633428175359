"""Have the kernel leave an overlay's whiteout, a device node, where a name was.

Landlock asks whether the directory's names may be moved, not whether a device may be made.

Wall: filter
Meets: EINVAL
Control: fence
Reference: rename(2), RENAME_WHITEOUT; since Linux 5.8 without any right
"""

from tests.escape.inside import got, system

RENAME_WHITEOUT = 4

open("/tmp/seen", "w").close()
system("renameat2", -100, b"/tmp/seen", -100, b"/tmp/elsewhere", RENAME_WHITEOUT)
got("a whiteout")
