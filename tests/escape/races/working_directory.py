"""Exchange the working directory, before the start, for a link to PID 1's.

Wall: cwd is looked up inside, as the payload
Meets: in-place
Ends: path_denied path_missing root_owned path_kind target_invalid cwd_missing
Scene: race_cwd
Control: fence
Reference: CVE-2024-21626
"""

import os
import sys

from tests.escape.inside import contained, got

# By whichever of its two names.
if (here := os.readlink("/proc/self/cwd")) not in (sys.argv[1], sys.argv[1].replace("moving", "link")):
    got(here)
contained("in-place")
