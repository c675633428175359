"""Lay a ruleset over the rules that allows what is forbidden: landlock's layers only narrow.

Wall: read-only mounts; landlock narrows
Meets: EROFS EACCES
Scene: note_of_the_callers
Control: scene
Reference: landlock(7)
"""

import ctypes
import os
import struct
import sys

from tests.escape.inside import got, libc, outcome, system

EVERYTHING, PATH_BENEATH = (1 << 13) - 1, 1


def allow_everything() -> None:
    ruleset = system("landlock_create_ruleset", ctypes.create_string_buffer(struct.pack("=Q", EVERYTHING), 8), 8, 0)
    rule = struct.pack("=Qi", EVERYTHING, os.open("/", os.O_PATH))
    system("landlock_add_rule", ruleset, PATH_BENEATH, ctypes.create_string_buffer(rule, 12), 0)
    libc.prctl(38, 1, 0, 0, 0)
    system("landlock_restrict_self", ruleset, 0)


outcome(allow_everything)
os.close(os.open(sys.argv[1], os.O_WRONLY))
got("a file to write")
