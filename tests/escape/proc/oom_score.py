"""Hide from the out-of-memory killer, so that it takes others: less than was set from outside, or the host's own value.

Wall: the value is set from outside, and is the floor; capabilities
Meets: EACCES EPERM
Scene: oom_score
Control: fence
Reference: proc_pid_oom_score_adj(5)
"""

import sys

from tests.escape.inside import each, tries


def lower(value: str) -> None:
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write(value)


tries(each(lower, *sys.argv[1:]))
