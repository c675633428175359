"""Be born into namespaces: clone, with each flag and with rubbish in the upper half of the register.

The kernel takes 32 bits of the flags on some paths and 64 on others; a filter that compares the wrong width is passed.

Wall: filter; max_user_namespaces is 0; capabilities
Meets: EPERM
Control: fence
Reference: clone(2); seccomp(2), arguments are 64 bits wide
"""

import os

from tests.escape.inside import NEWCGROUP, NEWIPC, NEWNET, NEWNS, NEWPID, NEWUSER, NEWUTS, SIGCHLD, each, system, tries

FLAGS = (NEWUSER, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWPID, NEWNET, NEWUSER | NEWPID)
WORDS = [flag | SIGCHLD | high << 32 for flag in FLAGS for high in (0, 0xDEADBEEF)]


def born(word: int) -> None:
    if system("clone", word, 0, 0, 0, 0) == 0:
        os._exit(0)
    os.wait()


tries(each(born, *WORDS))
