"""Exchange the place of a tmpfs for a link, and have a writable one over what is read-only.

Wall: places inside are found without following links
Meets: EROFS EACCES EPERM
Ends: path_denied path_missing root_owned path_kind target_invalid cwd_missing
Scene: race_tmpfs
Control: fence
Reference: CVE-2021-30465
"""

import os

from tests.escape.inside import got

os.close(os.open("/dev/immured-made", os.O_CREAT | os.O_WRONLY))
got("a writable /dev")
