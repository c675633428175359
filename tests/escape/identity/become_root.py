"""Change to uid 0, or to another run's, by every call there is.

Wall: capabilities; ids
Meets: EPERM EINVAL
Control: fence without ids
Reference: setresuid(2)
"""

import os

from tests.escape.inside import system, tries

tries(
    {
        "setuid": lambda: os.setuid(0),
        "setreuid": lambda: os.setreuid(0, 0),
        "setresuid": lambda: os.setresuid(0, 0, 0),
        "another": lambda: os.setresuid(1001, 1001, 1001),
        "upper half": lambda: system("setuid", 0xDEADBEEF << 32),
        "setresgid": lambda: os.setresgid(0, 0, 0),
    }
)
