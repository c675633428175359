"""Switch "no new privileges" off again.

Wall: no new privileges
Meets: still
Control: fence without new privileges
Reference: PR_SET_NO_NEW_PRIVS(2const)
"""

from tests.escape.inside import contained, got, libc

SET, GET = 38, 39
libc.prctl(SET, 0, 0, 0, 0)
if libc.prctl(GET, 0, 0, 0, 0) == 0:
    got("new privileges")
contained("still")
