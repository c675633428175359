"""Run a setuid program that stands in a bound directory.

Wall: no new privileges; nosuid on every mount; user namespace
Meets: still
Scene: setuid_program
Control: fence without new privileges, nosuid
Reference: execve(2)
"""

import subprocess
import sys

from tests.escape.inside import contained, got

if subprocess.run([sys.argv[1], "-u"], capture_output=True, check=True).stdout == b"0\n":
    got("root")
contained("still")
