"""Watch whole mounts with fanotify, in groups that are counted.

Wall: filter
Meets: EPERM
Control: no filter
Needs: fanotify
Reference: fanotify_init(2)
"""

from tests.escape.inside import got, system

REPORT_FID = 0x200
system("fanotify_init", REPORT_FID, 0)
got("a group")
