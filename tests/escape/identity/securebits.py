"""Loosen the rules of exec: securebits, kept capabilities.

Wall: capabilities: securebits are locked
Meets: EPERM
Control: fence without ids, capabilities
Reference: PR_SET_SECUREBITS(2const)
"""

from tests.escape.inside import check, libc, tries

SET_SECUREBITS, SET_KEEPCAPS = 28, 8
tries(
    {
        "securebits": lambda: check(libc.prctl(SET_SECUREBITS, 0)),
        "noroot": lambda: check(libc.prctl(SET_SECUREBITS, 1)),
        "keep capabilities": lambda: check(libc.prctl(SET_KEEPCAPS, 1)),
    }
)
