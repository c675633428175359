"""Carry the bit over from a file that has it: rename, a hard link into the writable directory.

Wall: every mount is its own; ids
Meets: EXDEV EPERM EROFS EACCES
Scene: setuid_program
Control: scene
Reference: link(2), rename(2)
"""

import os
import sys

from tests.escape.inside import tries

program, directory = sys.argv[1:3]
tries(
    {
        "link": lambda: os.link(program, f"{directory}/linked"),
        "rename": lambda: os.rename(program, f"{directory}/moved"),
    }
)
