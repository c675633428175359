"""Run a program with file capabilities that stands in a bound directory.

Wall: no new privileges; nosuid on every mount; the bounding set is empty
Meets: none EPERM
Scene: program_with_capabilities
Control: fence without new privileges, nosuid
Reference: capabilities(7), "File capabilities"
"""

import subprocess
import sys

from tests.escape.inside import contained, got

status = subprocess.run([sys.argv[1], "/proc/self/status"], capture_output=True, check=True, text=True).stdout
mask = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff"))
if int(mask, 16):
    got(mask)
contained("none")
