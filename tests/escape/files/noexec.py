"""Run a program where nothing may be run: by its name, by the loader, by descriptor.

Wall: noexec
Meets: EACCES EPERM refused
Scene: program_not_to_be_run
Control: scene
Reference: mount(8), noexec; ld.so(8)
"""

import glob
import os
import subprocess
import sys

from tests.escape.inside import contained, got

PROGRAM = sys.argv[1]
LOADERS = glob.glob("/lib64/ld-linux-*") + glob.glob("/lib/ld-linux-*")


def run(*argv: str) -> bool:
    try:
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


if (
    run(PROGRAM)
    or any(run(loader, PROGRAM) for loader in LOADERS)
    or run(f"/proc/self/fd/{os.open(PROGRAM, os.O_PATH)}")
):
    got("the program, run")
contained("refused")
