"""Exchange a file that is brought back after the run for a link to one of root's.

Wall: files are collected as the payload, inside, without following links
Meets: outside-decides
Ends: path_denied path_missing root_owned path_kind target_invalid cwd_missing
Scene: race_collect
Control: fence
Reference: CVE-2018-15664 (docker cp)
"""

from tests.escape.inside import contained

contained("outside-decides")  # the scene looks at what came back
