"""Overwrite the program that runs: hold it by O_PATH while it runs, write it when it has ended.

Wall: read-only mounts
Meets: EROFS EACCES
Scene: program_of_the_callers
Control: scene
Reference: CVE-2019-5736
"""

import os
import subprocess
import sys

from tests.escape.inside import got

with subprocess.Popen([sys.argv[1], "600"]) as running:
    held = os.open(f"/proc/{running.pid}/exe", os.O_PATH)
    running.kill()
os.close(os.open(f"/proc/self/fd/{held}", os.O_WRONLY))
got("the program, to write")
