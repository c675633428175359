"""Exchange the place inside a writable bind, where something else is to be mounted, for a link.

Wall: places inside are found without following links
Meets: in-place
Ends: path_denied path_missing root_owned path_kind target_invalid cwd_missing
Scene: race_target
Control: fence
Reference: CVE-2021-30465
"""

import os

from tests.escape.inside import contained, got

if os.path.exists("/dev/immured-marker"):
    got("a mount over /dev")
contained("in-place")
