"""Hold the kernel at a page fault for as long as an exploit likes.

Wall: filter
Meets: EPERM
Control: no filter
Needs: userfaultfd
Reference: userfaultfd(2); the heap spray of setxattr and userfaultfd (Nikolenko, 2018)
"""

from tests.escape.inside import got, system

USER_MODE_ONLY = 1
system("userfaultfd", USER_MODE_ONLY)
got("a descriptor")
