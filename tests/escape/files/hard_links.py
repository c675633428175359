"""Keep a file of root's in a writable directory by a second name, so that a later version of it can be told apart.

Wall: ids; fs.protected_hardlinks
Meets: EPERM EACCES EOVERFLOW
Scene: file_of_roots
Control: scene
Reference: proc_sys_fs(5), protected_hardlinks
"""

import os
import sys

from tests.escape.inside import got

os.link(sys.argv[1], sys.argv[1] + "-kept")
got("a second name")
