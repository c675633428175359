"""Join groups, or drop one that denies.

Wall: capabilities; user namespace
Meets: EPERM
Control: fence without ids, capabilities
Reference: CVE-2014-8989
"""

import os

from tests.escape.inside import tries

tries({"join": lambda: os.setgroups([0]), "drop": lambda: os.setgroups([])})
