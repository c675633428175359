"""Make namespaces of one's own, one kind after the other: with a user namespace come all capabilities in it.

Wall: filter; max_user_namespaces is 0; capabilities
Meets: EPERM
Control: fence
Reference: CVE-2022-0185, CVE-2022-0492: each needed only this
"""

from tests.escape.inside import NEWCGROUP, NEWIPC, NEWNET, NEWNS, NEWPID, NEWTIME, NEWUSER, NEWUTS, each, system, tries

FLAGS = (NEWUSER, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWPID, NEWNET, NEWTIME, NEWUSER | NEWNS | NEWNET)
tries(each(lambda flag: system("unshare", flag), *FLAGS))
