"""Give a protected file a second name outside its protection, and write there.

Wall: a protected path is a mount of its own: no link leads out of it
Meets: EXDEV EROFS EACCES EPERM
Scene: protected_directory
Control: scene
Reference: link(2), EXDEV; protected_hardlinks
"""

import os
import sys

from tests.escape.inside import got

ABOVE = sys.argv[1]
os.link(f"{ABOVE}/kept/hook", f"{ABOVE}/alias")
os.close(os.open(f"{ABOVE}/alias", os.O_WRONLY))
got("the file, by another name")
