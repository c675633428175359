"""Stop the machine, its accounting, its swap, its quotas: each with nonsense that only the allowed are told of.

Wall: filter; capabilities
Meets: EPERM
Control: fence without ids, capabilities
Reference: reboot(2), acct(2), swapon(2), quotactl(2)
"""

from tests.escape.inside import through, tries

tries(
    {
        "reboot": lambda: through("reboot", 1, 2, 3, 0),
        "acct": lambda: through("acct", b"/nowhere/at/all"),
        "swapon": lambda: through("swapon", b"/nowhere/at/all", 0),
        "swapoff": lambda: through("swapoff", b"/nowhere/at/all"),
        "sethostname": lambda: through("sethostname", 1, 1),
    }
)
