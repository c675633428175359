"""Exchange the directory that becomes the root for a link to one of root's.

Wall: a caller's path is opened as the caller, once
Meets: refused
Ends: path_denied path_missing root_owned path_kind target_invalid cwd_missing
Scene: race_root
Control: fence
Reference: CVE-2018-15664, CVE-2021-30465, CVE-2019-14271
"""

import sys

from tests.escape.inside import contained, got, outcome, read

if outcome(lambda: read(f"{sys.argv[1]}/secret")) == "ok":
    got("root's secret")
contained("refused")
